--- Byte spans and wrong arguments for specs.

local byte_span = require "byte_span"
local assert = require "luassert"

local spans = {}

--- What is no integer, and what is neither string nor span.
spans.NO_INTEGERS = { 1.5, "80", true, {}, 0 / 0, 1 / 0, print }
spans.NO_DATA = { 1, 1.5, true, {}, print, io.stdout }

--- A span of the bytes of `text` in the middle of a block whose other bytes are `margin`.
function spans.span_of(text, margin)
  local block = byte_span.new(#text + 8)
  block:fill((margin or "~"):byte())
  local span = block:slice(5, #text + 4)
  assert.equal(#text, span:copy(text))
  return span
end

--- A span of the bytes of `text` whose capacity is `more` larger, with zero bytes there.
function spans.span_with_capacity(text, more)
  local span = byte_span.new(#text, #text + more)
  span:copy(text)
  return span
end

--- assert.equal for the many comparisons of a loop: it costs nothing where they are equal.
function spans.expect_equal(expected, got)
  if not rawequal(expected, got) then assert.equal(expected, got) end
end

return spans
