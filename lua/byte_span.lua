--- byte_span: views of blocks of memory. Slices share memory. The reference is docs/reference/byte_span.md.

---@alias byte_span.source string|byte_span

---@class byte_span
---@field [integer] integer a byte, 0..255; the index is in 1..#span
---@field capacity integer bytes from the start of the span to the end of its memory; read-only
---@field slice fun(self: byte_span, first?: integer, last?: integer): byte_span a span on the same memory
---@field resize fun(self: byte_span, length: integer): byte_span sets the length, returns this span
---@field copy fun(self: byte_span, source: byte_span.source): integer copies bytes in, returns their number
---@field append fun(self: byte_span, ...: byte_span.source|nil): byte_span a new span, in place if it fits
---@field fill fun(self: byte_span, byte: integer): byte_span sets all bytes, returns the span itself
---@field sub fun(self: byte_span, first: integer, last?: integer): string a copy of some bytes, as string.sub
---@field unpack fun(self: byte_span, format: string, position?: integer): ... values, next position
---@field pack fun(self: byte_span, position: integer, format: string, ...: any): integer next position
---@field starts_with fun(self: byte_span, prefix: byte_span.source): boolean
---@field ends_with fun(self: byte_span, suffix: byte_span.source): boolean
---@field find fun(self: byte_span, target: byte_span.source, first?: integer): integer|nil first match
---@field rfind fun(self: byte_span, target: byte_span.source, last?: integer): integer|nil last match
---@field find_first_of fun(self: byte_span, set: byte_span.source, first?: integer): integer|nil
---@field find_last_of fun(self: byte_span, set: byte_span.source, last?: integer): integer|nil
---@field find_first_not_of fun(self: byte_span, set: byte_span.source, first?: integer): integer|nil
---@field find_last_not_of fun(self: byte_span, set: byte_span.source, last?: integer): integer|nil
---@field trimmed fun(self: byte_span, set?: byte_span.source): byte_span a slice without set at its ends
---@operator len: integer

---@class byte_span.module
---@field new fun(length: integer, capacity?: integer): byte_span a span of zero bytes in new memory
---@field append fun(...: byte_span.source|nil): byte_span a span of all the bytes in new memory

---@type byte_span.module
return require("ip.core").byte_span
