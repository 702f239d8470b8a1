local byte_span = require "byte_span"

local MAX_SIZE = math.maxinteger == 0x7fffffffffffffff and 0x7fffffffffff or 0x3fffffff
local NO_INTEGERS = {1.5, "80", true, {}, 0 / 0, 1 / 0, print}
local NO_DATA = {1, 1.5, true, {}, print, io.stdout}

-- A span of the bytes of `text` in the middle of a block whose other bytes are `margin`.
local function span_of(text, margin)
  local block = byte_span.new(#text + 8)
  block:fill((margin or "~"):byte())
  local span = block:slice(5, #text + 4)
  assert.equal(#text, span:copy(text))
  return span
end

-- A span of the bytes of `text` with `room` zero bytes behind them.
local function span_with_room(text, room)
  local span = byte_span.new(#text, #text + room)
  span:copy(text)
  return span
end

local function assert_bad_argument(what, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok, "no error")
  assert.is_string(message)
  assert.truthy(message:find("bad argument", 1, true), message)
  if what then assert.truthy(message:find(what, 1, true), message) end
end

-- assert.equal for the many comparisons of a loop: it costs nothing where they are equal.
local function expect_equal(expected, got)
  if not rawequal(expected, got) then assert.equal(expected, got) end
end

local function index(span, i)
  return span[i]
end

local function set_index(span, i, value)
  span[i] = value
end

-- Calls `fn` such that its first allocation runs `finalizer`.
local function with_finalizer(finalizer, fn)
  local ran = false
  collectgarbage()
  collectgarbage("generational")
  collectgarbage("stop")
  setmetatable({}, {
    __gc = function()
      ran = true
      finalizer()
    end,
  })
  collectgarbage("restart")
  local ok, result = pcall(fn)
  local ran_inside = ran
  collectgarbage("incremental")
  assert.is_true(ok, result)
  assert.is_true(ran_inside, "the finalizer did not run inside the call")
  return result
end

describe("byte_span.new", function()
  it("gives zeros, up to the capacity", function()
    for _ = 1, 20 do
      byte_span.new(4096):fill(255)
    end
    collectgarbage()
    local span = byte_span.new(10, 4096)
    assert.equal(10, #span)
    assert.equal(4096, span.capacity)
    assert.equal(("\0"):rep(4096), tostring(span:slice(1, 4096)))
  end)

  it("takes the length as the capacity where none is given", function()
    assert.equal(7, byte_span.new(7).capacity)
    assert.equal(7, byte_span.new(7, nil).capacity)
    assert.equal(7, byte_span.new(7.0).capacity)
  end)

  it("makes a span of capacity 0 that works", function()
    local span = byte_span.new(0)
    assert.equal(0, #span)
    assert.equal(0, span.capacity)
    assert.equal("", tostring(span))
    assert.equal(0, #span:slice())
    assert.equal(0, #span:slice(1, 0))
    assert.equal(0, span:copy("abc"))
    assert.equal(span, span:fill(1))
    assert.equal(span, span:resize(0))
    assert.equal("", span:sub(1))
    assert.equal(1, span:unpack(""))
    assert.equal(1, span:pack(1, ""))
    assert.equal("abc", tostring(span:append("abc")))
    assert.equal(0, #span:trimmed())
  end)

  it("refuses what is no size", function()
    for _, value in ipairs(NO_INTEGERS) do
      assert_bad_argument("#1", byte_span.new, value)
      assert_bad_argument("#2", byte_span.new, 1, value)
    end
    assert_bad_argument("#1", byte_span.new)
    assert_bad_argument("#1", byte_span.new, nil, 5)
    assert_bad_argument("#1", byte_span.new, -1)
    assert_bad_argument("#1", byte_span.new, math.mininteger)
    assert_bad_argument("#2", byte_span.new, 0, -1)
    assert_bad_argument("#2", byte_span.new, 5, 4)
  end)

  it("refuses sizes past the address space", function()
    for _, size in ipairs {MAX_SIZE + 1, 1 << 62, math.maxinteger - 64, math.maxinteger} do
      assert_bad_argument("#1", byte_span.new, size)
      assert_bad_argument("#2", byte_span.new, 0, size)
    end
  end)
end)

describe("an index", function()
  it("reads and writes each byte value at each place", function()
    local span = byte_span.new(256)
    for i = 1, 256 do
      span[i] = i - 1
    end
    for i = 1, 256 do
      assert.equal(i - 1, span[i])
      assert.equal("integer", math.type(span[i]))
    end
    span[2.0] = 9.0
    assert.equal(9, span[2.0])
  end)

  it("outside 1..#span is an error, also within the capacity", function()
    local span = byte_span.new(4, 8)
    for _, i in ipairs {0, -1, 5, 8, 9, math.maxinteger, math.mininteger, 1 << 32} do
      assert_bad_argument("outside 1..4", index, span, i)
      assert_bad_argument("outside 1..4", set_index, span, i, 0)
    end
    assert_bad_argument("outside 1..0", index, byte_span.new(0), 1)
    assert.equal(("\0"):rep(8), tostring(span:slice(1, 8)))
  end)

  it("that has no integer value is an error", function()
    local span = byte_span.new(4)
    for _, i in ipairs {1.5, 0 / 0, 1 / 0, 1e300} do
      assert_bad_argument(nil, index, span, i)
      assert_bad_argument(nil, set_index, span, i, 0)
    end
  end)

  it("takes a byte and nothing else", function()
    local span = byte_span.new(1)
    span[1] = 7
    for _, value in ipairs {-1, 256, 1.5, "80", "a", true, {}, math.maxinteger, math.mininteger, 256 + 7} do
      assert_bad_argument("#3", set_index, span, 1, value)
    end
    assert_bad_argument("#3", set_index, span, 1, nil)
    assert.equal(7, span[1])
  end)
end)

describe("a property", function()
  it("that is unknown raises and is named, on read and on write", function()
    local span = byte_span.new(4)
    assert.has_error(function() return span.lenght end, "byte_span has no property 'lenght'")
    assert.has_error(function() span.lenght = 1 end, "byte_span has no property 'lenght'")
    assert.has_error(function() return span["1"] end, "byte_span has no property '1'")
    assert.has_error(function() return span[nil] end, "byte_span has no property 'nil'")
    assert.has_error(function() return span[true] end, "byte_span has no property 'true'")
  end)

  it("cannot be written, nor can a method", function()
    local span = byte_span.new(4)
    assert.has_error(function() span.capacity = 9 end, "property 'capacity' of byte_span cannot be written")
    assert.has_error(function() span.slice = print end, "property 'slice' of byte_span cannot be written")
  end)

  it("of the metatable is not to be had", function()
    assert.equal("byte_span", getmetatable(byte_span.new(1)))
    assert.is_false(pcall(setmetatable, byte_span.new(1), {}))
  end)
end)

describe("every method", function()
  local CALLS = {
    append = {"a"}, copy = {"a"}, ends_with = {"a"}, fill = {0}, find = {"a"}, find_first_not_of = {"a"},
    find_first_of = {"a"}, find_last_not_of = {"a"}, find_last_of = {"a"}, pack = {1, "B", 1}, resize = {1},
    rfind = {"a"}, slice = {}, starts_with = {"a"}, sub = {1}, trimmed = {}, unpack = {"B"},
  }

  it("checks its self", function()
    local span = byte_span.new(4)
    for name, arguments in pairs(CALLS) do
      assert.is_true(pcall(span[name], span, table.unpack(arguments)), name)
      for _, self in ipairs {"text", 1, true, {}, io.stdout, print} do
        assert_bad_argument("byte_span expected", span[name], self, table.unpack(arguments))
      end
      assert_bad_argument("byte_span expected", span[name])
    end
  end)

  it("is checked here", function()
    local metatable = debug.getmetatable(byte_span.new(0))
    local _, members = debug.getupvalue(metatable.__index, 2)
    for name, member in pairs(members) do
      if type(member) == "function" then assert.is_table(CALLS[name], name) end
    end
  end)

  it("and every metamethod refuses other objects", function()
    local metatable = debug.getmetatable(byte_span.new(0))
    for _, event in ipairs {"__index", "__newindex", "__len", "__tostring"} do
      for _, self in ipairs {"text", 1, {}, io.stdout} do
        assert_bad_argument("byte_span expected", metatable[event], self, 1, 1)
      end
    end
    assert_bad_argument("byte_span expected", metatable.__index, io.stdout, "capacity")
  end)
end)

describe("a slice", function()
  it("shares memory with its span", function()
    local span = span_of("abcdef")
    local slice = span:slice(2, 4)
    assert.equal("bcd", tostring(slice))
    slice[1] = ("X"):byte()
    assert.equal("aXcdef", tostring(span))
    span[4] = ("Y"):byte()
    assert.equal("XcY", tostring(slice))
  end)

  it("shows the whole span by default", function()
    local span = span_of("abcdef")
    assert.equal("abcdef", tostring(span:slice()))
    assert.equal("abcdef", tostring(span:slice(nil, nil)))
    assert.equal("cdef", tostring(span:slice(3)))
    assert.equal("ab", tostring(span:slice(nil, 2)))
    assert.is_false(rawequal(span, span:slice()))
  end)

  it("may grow up to the capacity, and has what is left of it", function()
    local span = byte_span.new(2, 6)
    local all = span:slice(1, 6)
    all:copy("abcdef")
    assert.equal("ab", tostring(span))
    assert.equal("cde", tostring(span:slice(3, 5)))
    assert.equal(4, span:slice(3, 5).capacity)
    assert.equal("cdef", tostring(span:slice(3, 3):slice(1, 4)))
    assert.equal(0, span:slice(7, 6).capacity)
  end)

  it("may be empty at every place", function()
    local span = byte_span.new(2, 6)
    for first = 1, 7 do
      assert.equal(0, #span:slice(first, first - 1))
      assert.equal(7 - first, span:slice(first, first - 1).capacity)
    end
    assert.equal(0, #span:slice(3))
  end)

  it("outside the capacity is a bad argument", function()
    local span = byte_span.new(2, 6)
    local slice = span.slice
    for _, range in ipairs {
      {0}, {-1}, {4}, {7}, {8}, {0, 0}, {8, 7}, {math.maxinteger}, {math.mininteger},
      {math.mininteger, math.maxinteger}, {math.maxinteger, math.maxinteger},
    } do
      assert_bad_argument("#2", slice, span, table.unpack(range))
    end
    for _, range in ipairs {{1, 7}, {1, -1}, {3, 1}, {7, 5}, {1, math.maxinteger}, {1, math.mininteger}} do
      assert_bad_argument("#3", slice, span, table.unpack(range))
    end
    for _, value in ipairs(NO_INTEGERS) do
      assert_bad_argument("#2", slice, span, value)
      assert_bad_argument("#3", slice, span, 1, value)
    end
  end)

  it("keeps the memory alive when its span is gone", function()
    local slices = {}
    for i = 1, 50 do
      slices[i] = span_of(("%04d"):format(i):rep(500)):slice(1001, 1004)
    end
    collectgarbage()
    collectgarbage()
    for _ = 1, 50 do
      byte_span.new(2000):fill(255)
    end
    for i = 1, 50 do
      assert.equal(("%04d"):format(i), tostring(slices[i]))
    end
  end)

  it("does not keep memory alive when it is gone itself", function()
    collectgarbage()
    collectgarbage()
    local before = collectgarbage("count")
    for _ = 1, 20 do
      byte_span.new(1 << 20):slice(5, 6)
    end
    collectgarbage()
    collectgarbage()
    assert.is_true(collectgarbage("count") - before < 1024)
  end)
end)

describe("resize", function()
  it("changes the span's own length and returns the span", function()
    local span = byte_span.new(4, 8)
    local slice = span:slice()
    assert.is_true(rawequal(span, span:resize(8)))
    assert.equal(8, #span)
    assert.equal(8, span.capacity)
    assert.equal(4, #slice)
    assert.equal(0, #span:resize(0))
    assert.equal(8, span.capacity)
  end)

  it("changes no byte", function()
    local span = span_of("abcdef")
    assert.equal("ab", tostring(span:resize(2)))
    assert.equal("abcdef", tostring(span:resize(6)))
  end)

  it("refuses what is not in 0..capacity", function()
    local span = byte_span.new(4, 8)
    for _, value in ipairs {-1, 9, math.maxinteger, math.mininteger, table.unpack(NO_INTEGERS)} do
      assert_bad_argument("#2", span.resize, span, value)
    end
    assert_bad_argument("#2", span.resize, span)
    assert.equal(4, #span)
  end)
end)

describe("copy", function()
  it("copies as many bytes as both have and says how many", function()
    local span = span_of("abcdef")
    assert.equal(3, span:copy("XYZ"))
    assert.equal("XYZdef", tostring(span))
    assert.equal(6, span:copy("123456789"))
    assert.equal("123456", tostring(span))
    assert.equal(0, span:copy(""))
    assert.equal(2, span:copy(span_of("\0\255")))
    assert.equal("\0\2553456", tostring(span))
    assert.equal("~~", tostring(span:slice(7, 8)))
  end)

  it("writes nothing behind the span, though there is capacity", function()
    local span = byte_span.new(2, 4)
    assert.equal(2, span:copy("abcd"))
    assert.equal("ab\0\0", tostring(span:slice(1, 4)))
  end)

  it("handles overlap in both directions", function()
    local span = span_of("abcdefgh")
    assert.equal(7, span:slice(2):copy(span))
    assert.equal("aabcdefg", tostring(span))
    assert.equal(7, span:copy(span:slice(2)))
    assert.equal("abcdefgg", tostring(span))
    assert.equal(8, span:copy(span))
    assert.equal("abcdefgg", tostring(span))
  end)

  it("refuses what is no data", function()
    local span = byte_span.new(4)
    for _, value in ipairs(NO_DATA) do
      assert_bad_argument("string or byte_span expected", span.copy, span, value)
    end
    assert_bad_argument("string or byte_span expected", span.copy, span)
  end)
end)

describe("fill", function()
  it("sets the bytes of the span, no other, and returns the span", function()
    local span = span_of("abcdef")
    assert.is_true(rawequal(span, span:fill(0)))
    local block = byte_span.new(6)
    block:slice(2, 4):fill(255)
    assert.equal("\0\255\255\255\0\0", tostring(block))
    assert.equal(("\0"):rep(6), tostring(span))
    assert.equal(("\0"):rep(6) .. "~~", tostring(span:slice(1, 8)))
  end)

  it("takes a byte and nothing else", function()
    local span = span_of("ab")
    for _, value in ipairs {-1, 256, math.maxinteger, table.unpack(NO_INTEGERS)} do
      assert_bad_argument("#2", span.fill, span, value)
    end
    assert_bad_argument("#2", span.fill, span)
    assert.equal("ab", tostring(span))
  end)
end)

describe("span:append", function()
  it("appends strings and spans; nil contributes nothing", function()
    local span = span_of("ab"):slice(1, 2)
    assert.equal("abcd\0efgh", tostring(span:append("cd", nil, "\0", span_of("ef"), "", nil, "gh", nil)))
    assert.equal("ab", tostring(span))
  end)

  it("returns a new span, also where there is nothing to append", function()
    local span = span_with_room("ab", 2)
    for _, result in ipairs {span:append(), span:append(nil), span:append(""), span:append("x")} do
      assert.is_false(rawequal(span, result))
      assert.equal("ab", result:sub(1, 2))
      assert.equal(4, result.capacity)
    end
  end)

  it("works in place where the capacity suffices", function()
    local span = span_with_room("ab", 4)
    local longer = span:append("cd", "ef")
    assert.equal("abcdef", tostring(longer))
    assert.equal(6, longer.capacity)
    assert.equal(2, #span)
    assert.equal("abcdef", tostring(span:slice(1, 6)))
    longer[1] = ("X"):byte()
    assert.equal("Xb", tostring(span))
  end)

  it("overwrites what lies behind the span, as in Go", function()
    local span = span_of("abcdef")
    assert.equal("abXY", tostring(span:slice(1, 2):append("XY")))
    assert.equal("abXYef", tostring(span))
  end)

  it("makes a new block with room to grow where it does not suffice", function()
    local span = span_with_room("ab", 1)
    local longer = span:append("cd")
    assert.equal("abcd", tostring(longer))
    assert.is_true(longer.capacity > 4)
    longer[1] = ("X"):byte()
    assert.equal("ab\0", tostring(span:slice(1, 3)))
    assert.equal(("\0"):rep(longer.capacity - 4), tostring(longer:slice(5, longer.capacity)))
  end)

  it("needs few blocks for many small appends", function()
    local span, blocks = byte_span.new(0), 0
    for i = 1, 20000 do
      local capacity = span.capacity
      span = span:append(string.char(i % 256))
      if span.capacity ~= capacity then blocks = blocks + 1 end
    end
    assert.equal(20000, #span)
    for i = 1, 20000 do
      expect_equal(i % 256, span[i])
    end
    assert.is_true(blocks < 25, "blocks: " .. blocks)
  end)

  it("doubles a span that is appended to itself, in place or not", function()
    local span = span_with_room("abc", 3)
    assert.equal("abcabc", tostring(span:append(span)))
    assert.equal("abcabcabc", tostring(span:append(span, span)))
  end)

  it("reads all its arguments as they were before the call", function()
    local random = 20240607
    local function below(n)
      random = (random * 1103515245 + 12345) % 0x80000000
      return (random >> 8) % n
    end
    local text = "0123456789abcdefghijklmnopqrstuv"
    for _ = 1, 3000 do
      local block = byte_span.new(#text)
      block:copy(text)
      local first = 1 + below(4)
      local span = block:slice(first, first - 1 + below(8))
      local parts, expected = {}, {tostring(span)}
      for i = 1, below(5) do
        local from = 1 + below(#text)
        parts[i] = block:slice(from, from - 1 + below(math.min(7, #text - from + 2)))
        expected[i + 1] = tostring(parts[i])
      end
      local all = table.concat(expected)
      local in_place = #all <= span.capacity
      local result = span:append(table.unpack(parts))
      expect_equal(all, tostring(result))
      expect_equal(in_place and text:sub(1, first - 1) .. all .. text:sub(first + #all) or text, tostring(block))
    end
  end)

  it("writes nothing where one of its arguments is bad", function()
    local span = span_with_room("ab", 16)
    for _, value in ipairs(NO_DATA) do
      assert_bad_argument("#3", span.append, span, "XY", value, "Z")
    end
    assert_bad_argument("string, byte_span or nil expected", span.append, span, 5)
    assert.equal("ab" .. ("\0"):rep(16), tostring(span:slice(1, 18)))
  end)

  it("takes as many arguments as Lua can pass", function()
    local parts = {}
    for i = 1, 5000 do
      parts[i] = string.char(i % 256)
    end
    local expected = table.concat(parts)
    assert.equal(expected, tostring(byte_span.new(0):append(table.unpack(parts))))
    assert.equal(expected, tostring(byte_span.new(0, 5000):append(table.unpack(parts))))
  end)
end)

describe("byte_span.append", function()
  it("makes a span of all its arguments; the first may be anything that the others may be", function()
    assert.equal("abcd", tostring(byte_span.append("ab", nil, span_of("cd"))))
    assert.equal("abcd", tostring(byte_span.append(span_of("ab"), "cd")))
    assert.equal("ab", tostring(byte_span.append(nil, "ab")))
  end)

  it("makes an empty span of nothing", function()
    for _, span in ipairs {byte_span.append(), byte_span.append(nil), byte_span.append("", nil)} do
      assert.equal(0, #span)
      assert.equal(0, span.capacity)
    end
  end)

  it("leaves the memory of its arguments alone", function()
    local span = span_with_room("ab", 8)
    local result = byte_span.append(span, "cd")
    assert.equal("abcd", tostring(result))
    assert.equal("ab\0\0", tostring(span:slice(1, 4)))
    result[1] = 0
    assert.equal("ab", tostring(span))
  end)

  it("leaves room to grow", function()
    local span = byte_span.append("ab")
    assert.is_true(span.capacity > 2)
    local longer = span:append("c")
    longer[1] = ("X"):byte()
    assert.equal("Xb", tostring(span))
  end)

  it("refuses what is no data", function()
    for _, value in ipairs(NO_DATA) do
      assert_bad_argument("#1", byte_span.append, value)
      assert_bad_argument("#2", byte_span.append, "a", value)
    end
  end)
end)

describe("a finalizer that resizes spans while memory is allocated", function()
  it("cannot make append write past a new block", function()
    local part = byte_span.new(8, 64)
    part:slice(1, 64):fill(120)
    local result = with_finalizer(function() part:resize(64) end, function() return byte_span.append(part, part) end)
    assert.is_true(#result >= 16 and #result <= result.capacity)
    assert.equal(("x"):rep(#result), tostring(result))
  end)

  it("cannot make append write past the capacity", function()
    local part, span = byte_span.new(8, 64), span_with_room("ab", 8)
    local guard = span:append("12345678")
    part:slice(1, 64):fill(120)
    local result = with_finalizer(function()
      part:resize(64)
      span:resize(10)
    end, function() return span:append(part) end)
    assert.equal("abxxxxxxxx", tostring(result))
    assert.equal("abxxxxxxxx", tostring(guard))
  end)

  it("cannot make pack write outside the span that it was called on", function()
    local block = byte_span.new(16)
    local span = block:slice(1, 8)
    local next = with_finalizer(function() span:resize(0) end, function() return span:pack(5, ">I4", 0x01fe02fd) end)
    assert.equal(9, next)
    assert.equal("\0\0\0\0\1\254\2\253\0\0\0\0\0\0\0\0", tostring(block))
  end)
end)

describe("sub", function()
  it("has string.sub's index rules", function()
    for _, text in ipairs {"", "a", "abcdef"} do
      local span = span_of(text)
      for first = -8, 8 do
        expect_equal(text:sub(first), span:sub(first))
        for last = -8, 8 do
          expect_equal(text:sub(first, last), span:sub(first, last))
        end
      end
      for _, first in ipairs {math.mininteger, -1, 0, 1, 3, math.maxinteger} do
        for _, last in ipairs {math.mininteger, -1, 0, 1, 3, math.maxinteger} do
          expect_equal(text:sub(first, last), span:sub(first, last))
        end
      end
    end
  end)

  it("does not reach into the capacity", function()
    assert.equal("", span_with_room("ab", 4):sub(3, 4))
  end)

  it("returns a copy", function()
    local span = span_of("ab")
    local text = span:sub(1)
    span[1] = 0
    assert.equal("ab", text)
  end)

  it("takes integers only", function()
    local span = span_of("ab")
    for _, value in ipairs(NO_INTEGERS) do
      assert_bad_argument("#2", span.sub, span, value)
      assert_bad_argument("#3", span.sub, span, 1, value)
    end
    assert_bad_argument("#2", span.sub, span)
  end)
end)

describe("unpack", function()
  local FORMATS = {
    "", "B", "b", "<I2", ">I2", "<i4 >i4", "!8 <I8", "!4 <I4 B", "!16 i16", "z", "s1", "<s2", ">s4", "c3", "z z",
    "!4 z I4", "x B", "Xi4 B", "!4 Xi4 B", "<d", ">f", "j", "=n", "z s1 c2", "!2 B I2", "B !8 Xd d",
  }

  local function assert_same(text, span, format, ...)
    local expected = table.pack(pcall(string.unpack, format, text, ...))
    local got = table.pack(pcall(span.unpack, span, format, ...))
    if expected[1] ~= got[1] then assert.equal(expected[1], got[1], format) end
    if not expected[1] then return end
    expect_equal(expected.n, got.n)
    for i = 2, expected.n do
      if expected[i] == expected[i] then expect_equal(expected[i], got[i]) end
    end
  end

  it("gives what string.unpack gives, at every position", function()
    local text = "\1\2\3\0abcdefg\0\5hello\0\0\0\3xyz\255\254\253\252\0\0\0\0\0\0\0"
    local span = span_of(text)
    for _, format in ipairs(FORMATS) do
      assert_same(text, span, format)
      for position = -#text - 2, #text + 3 do
        assert_same(text, span, format, position)
      end
      assert_same(text, span, format, math.maxinteger)
      assert_same(text, span, format, math.mininteger)
    end
  end)

  it("gives what string.unpack gives on a long span", function()
    local parts = {}
    for i = 1, 40 do
      parts[i] = string.pack("<s2 z", ("s"):rep(i * 13), ("z"):rep(i * 9))
    end
    local text = table.concat(parts)
    local span = span_of(text)
    for _, format in ipairs(FORMATS) do
      for position = 1, #text + 1, 7 do
        assert_same(text, span, format, position)
      end
    end
    local position = 1
    for i = 1, 40 do
      local s, z, next = span:unpack("<s2 z", position)
      assert.equal(("s"):rep(i * 13), s)
      assert.equal(("z"):rep(i * 9), z)
      position = next
    end
    assert.equal(#text + 1, position)
  end)

  it("does not read behind the span", function()
    local span = span_of("ab", "c")
    assert.is_false(pcall(span.unpack, span, "c3"))
    assert.is_false(pcall(span.unpack, span, "B", 3))
    assert.equal(3, span:unpack("", 3))
    assert_bad_argument("initial position out of span", span.unpack, span, "", 4)
  end)

  it("names what is wrong, and where it was called", function()
    local span = span_of("ab")
    local ok, message = pcall(function() return span:unpack("I4") end)
    assert.is_false(ok)
    assert.truthy(message:match("byte_span_spec%.lua:%d+: .*data string too short"), message)
    ok, message = pcall(function() return span:unpack("?") end)
    assert.is_false(ok)
    assert.truthy(message:match("byte_span_spec%.lua:%d+: .*invalid format option"), message)
  end)

  it("refuses what is no format and no position", function()
    local span = span_of("abcd")
    for _, value in ipairs(NO_DATA) do
      assert_bad_argument("#2", span.unpack, span, value)
    end
    assert_bad_argument("#2", span.unpack, span)
    for _, value in ipairs(NO_INTEGERS) do
      assert_bad_argument("#3", span.unpack, span, "B", value)
    end
  end)
end)

describe("pack", function()
  it("writes what string.pack gives and returns the position behind it", function()
    local span = span_of("........")
    assert.equal(5, span:pack(3, ">I2", 0x4142))
    assert.equal("..AB....", tostring(span))
    assert.equal(8, span:pack(1, "z s1 c1", "a", "bcd", "e"))
    assert.equal("a\0\3bcde.", tostring(span))
    assert.equal(9, span:pack(9, ""))
    assert.equal(9, span:pack(1, "<d", 0.1))
    assert.equal(0.1, (span:unpack("<d")))
  end)

  it("leaves the rest of the memory alone", function()
    local block = byte_span.new(8)
    block:fill(46)
    block:slice(3, 6):pack(1, "c4", "abcd")
    assert.equal("..abcd..", tostring(block))
  end)

  it("that does not fit changes nothing and names both sizes", function()
    local span = span_with_room("abc", 8)
    assert_bad_argument("4 bytes needed, 2 available", span.pack, span, 2, "I4", 1)
    assert_bad_argument("1 bytes needed, 0 available", span.pack, span, 4, "B", 1)
    assert_bad_argument("8 bytes needed, 3 available", span.pack, span, 1, "z", "1234567")
    assert.equal("abc\0\0\0\0\0\0\0\0", tostring(span:slice(1, 11)))
  end)

  it("of bad values changes nothing and says where it was called", function()
    local span = span_of("abcdefgh")
    for _, arguments in ipairs {
      {"B B", 1, 256}, {"B B", 1}, {"B i4", 1, "x"}, {"B ?", 1}, {"B I17", 1, 1}, {"B z", 1, "\0"},
    } do
      local ok, message = pcall(function() return span:pack(1, table.unpack(arguments)) end)
      assert.is_false(ok, arguments[1])
      assert.truthy(message:match("^[^:]*byte_span_spec%.lua:%d+: "), message)
    end
    assert.equal("abcdefgh", tostring(span))
  end)

  it("refuses what is no position and no format", function()
    local span = span_of("abcd")
    for _, value in ipairs {0, -1, 6, math.maxinteger, math.mininteger, table.unpack(NO_INTEGERS)} do
      assert_bad_argument("#2", span.pack, span, value, "B", 1)
    end
    for _, value in ipairs(NO_DATA) do
      assert_bad_argument("#3", span.pack, span, 1, value, 1)
    end
    assert_bad_argument("#2", span.pack, span)
    assert_bad_argument("#3", span.pack, span, 1)
    assert.equal("abcd", tostring(span))
  end)

  it("and unpack are not changed by a program that changes the table string", function()
    local pack, unpack = string.pack, string.unpack
    string.pack, string.unpack = error, error -- luacheck: ignore 122
    local ok, next, value = pcall(function()
      local span = byte_span.new(4)
      return span:pack(1, ">I4", 0x01020304), (span:unpack(">I4"))
    end)
    string.pack, string.unpack = pack, unpack -- luacheck: ignore 122
    assert.is_true(ok, next)
    assert.equal(5, next)
    assert.equal(0x01020304, value)
  end)
end)

describe("starts_with and ends_with", function()
  it("compare with the begin and the end", function()
    local span = span_of("ab\0cd")
    for i = 0, 5 do
      assert.is_true(span:starts_with(span:sub(1, i)))
      assert.is_true(span:ends_with(span:sub(6 - i)))
      assert.is_true(span:starts_with(span:slice(1, i)))
      assert.is_true(span:ends_with(span:slice(6 - i, 5)))
    end
    assert.is_false(span:starts_with("b"))
    assert.is_false(span:starts_with("ab\0ce"))
    assert.is_false(span:ends_with("c"))
    assert.is_false(span:ends_with("bb\0cd"))
  end)

  it("do not look outside the span", function()
    local span = span_of("ab", "c")
    assert.is_false(span:starts_with("abc"))
    assert.is_false(span:ends_with("cab"))
    assert.is_true(byte_span.new(0):starts_with(""))
    assert.is_true(byte_span.new(0):ends_with(""))
  end)

  it("refuse what is no data", function()
    local span = span_of("1")
    for _, value in ipairs(NO_DATA) do
      assert_bad_argument("#2", span.starts_with, span, value)
      assert_bad_argument("#2", span.ends_with, span, value)
    end
  end)
end)

-- What the find functions promise, said as plainly as possible.
local model = {}

function model.find(text, target, first)
  for i = first or 1, #text - #target + 1 do
    if text:sub(i, i + #target - 1) == target then return i end
  end
end

function model.rfind(text, target, last)
  for i = math.min(last or #text, #text - #target + 1), 1, -1 do
    if text:sub(i, i + #target - 1) == target then return i end
  end
end

local function model_first(is_member)
  return function(text, set, first)
    for i = first or 1, #text do
      if (set:find(text:sub(i, i), 1, true) ~= nil) == is_member then return i end
    end
  end
end

local function model_last(is_member)
  return function(text, set, last)
    for i = last or #text, 1, -1 do
      if (set:find(text:sub(i, i), 1, true) ~= nil) == is_member then return i end
    end
  end
end

model.find_first_of = model_first(true)
model.find_first_not_of = model_first(false)
model.find_last_of = model_last(true)
model.find_last_not_of = model_last(false)

function model.trimmed(text, set)
  local first = model.find_first_not_of(text, set)
  return first and text:sub(first, model.find_last_not_of(text, set)) or ""
end

local FORWARD = {"find", "find_first_of", "find_first_not_of"}
local BACKWARD = {"rfind", "find_last_of", "find_last_not_of"}

describe("the find functions", function()
  it("agree with a naive model", function()
    local state = 4711
    local function below(n)
      state = (state * 1103515245 + 12345) % 0x80000000
      return (state >> 8) % n
    end
    local function word(longest, alphabet)
      local letters = {}
      for i = 1, below(longest + 1) do
        local at = 1 + below(#alphabet)
        letters[i] = alphabet:sub(at, at)
      end
      return table.concat(letters)
    end
    for round = 1, 600 do
      local alphabet = round % 3 == 0 and "a" or round % 3 == 1 and "ab\0" or "a\255 \t\128\127"
      local text, target = word(14, alphabet), word(round % 2 == 0 and 3 or 5, alphabet)
      local span = span_of(text, alphabet:sub(1, 1))
      local as_span = span_of(target, alphabet:sub(1, 1))
      for _, name in ipairs(FORWARD) do
        expect_equal(model[name](text, target), span[name](span, target))
        for first = 1, #text + 1 do
          local expected = model[name](text, target, first)
          expect_equal(expected, span[name](span, target, first))
          expect_equal(expected, span[name](span, as_span, first))
        end
      end
      for _, name in ipairs(BACKWARD) do
        expect_equal(model[name](text, target), span[name](span, target))
        for last = 0, #text do
          local expected = model[name](text, target, last)
          expect_equal(expected, span[name](span, target, last))
          expect_equal(expected, span[name](span, as_span, last))
        end
      end
      expect_equal(model.trimmed(text, target), tostring(span:trimmed(target)))
      expect_equal(model.trimmed(text, target), tostring(span:trimmed(as_span)))
    end
  end)

  it("know all byte values", function()
    local all = {}
    for byte = 0, 255 do
      all[byte + 1] = string.char(byte)
    end
    local span = span_of(table.concat(all))
    for byte = 0, 255 do
      local letter = string.char(byte)
      for _, name in ipairs {"find", "rfind", "find_first_of", "find_last_of"} do
        assert.equal(byte + 1, span[name](span, letter))
      end
      assert.equal(byte == 0 and 2 or 1, span:find_first_not_of(letter))
      assert.equal(byte == 255 and 255 or 256, span:find_last_not_of(letter))
    end
    assert.is_nil(span:find_first_not_of(span))
    assert.is_nil(span:find_last_not_of(span))
  end)

  it("return one value, nil where nothing is found", function()
    local span = span_of("abc")
    for _, name in ipairs {"find", "rfind", "find_first_of", "find_last_of"} do
      assert.equal(1, select("#", span[name](span, "x")))
      assert.is_nil((span[name](span, "x")))
    end
    assert.is_nil(span:find("abcd"))
    assert.is_nil(span:rfind("abcd"))
  end)

  it("let a match of rfind begin at last and end behind it", function()
    local span = span_of("abcabc")
    assert.equal(4, span:rfind("abc"))
    assert.equal(4, span:rfind("abc", 4))
    assert.equal(1, span:rfind("abc", 3))
    assert.is_nil(span:rfind("bc", 1))
  end)

  it("find an empty target where they begin", function()
    local span = span_of("abc")
    for i = 1, 3 do
      assert.equal(i, span:find("", i))
      assert.equal(i, span:rfind("", i))
    end
    assert.equal(1, span:find(""))
    assert.equal(3, span:rfind(""))
    assert.equal(4, span:find("", 4))
    assert.is_nil(span:rfind("", 0))
    assert.equal(1, byte_span.new(0):find(""))
    assert.is_nil(byte_span.new(0):rfind(""))
  end)

  it("find nothing in an empty set, and everything outside it", function()
    local span = span_of("abc")
    assert.is_nil(span:find_first_of(""))
    assert.is_nil(span:find_last_of(""))
    assert.equal(1, span:find_first_not_of(""))
    assert.equal(3, span:find_last_not_of(""))
  end)

  it("may begin one past the end, or before the begin where they go backward", function()
    local span = span_of("aaa", "a")
    for _, name in ipairs(FORWARD) do
      assert.is_nil(span[name](span, "a", 4))
    end
    for _, name in ipairs(BACKWARD) do
      assert.is_nil(span[name](span, "a", 0))
    end
  end)

  it("refuse positions outside the span", function()
    local span = span_with_room("abc", 8)
    for _, name in ipairs(FORWARD) do
      for _, first in ipairs {0, -1, 5, 8, math.maxinteger, math.mininteger, table.unpack(NO_INTEGERS)} do
        assert_bad_argument("#3", span[name], span, "a", first)
      end
    end
    for _, name in ipairs(BACKWARD) do
      for _, last in ipairs {-1, 4, 8, math.maxinteger, math.mininteger, table.unpack(NO_INTEGERS)} do
        assert_bad_argument("#3", span[name], span, "a", last)
      end
    end
  end)

  it("refuse what is no data", function()
    local span = span_of("1")
    for _, names in ipairs {FORWARD, BACKWARD} do
      for _, name in ipairs(names) do
        for _, value in ipairs(NO_DATA) do
          assert_bad_argument("#2", span[name], span, value)
        end
        assert_bad_argument("#2", span[name], span)
      end
    end
  end)
end)

describe("trimmed", function()
  it("takes ASCII white space off both ends by default", function()
    assert.equal("a b", tostring(span_of(" \f\n\r\t\va b\v\t\r\n\f "):trimmed()))
    assert.equal("a", tostring(span_of("a"):trimmed(nil)))
    for _, kept in ipairs {"\0", "\8", "\14", "\31", "\33", "\127", "\160", "\133"} do
      assert.equal(kept, tostring(span_of(" " .. kept .. " "):trimmed()))
    end
  end)

  it("takes any set", function()
    assert.equal(" a ", tostring(span_of("-+ a +-"):trimmed("+-")))
    assert.equal(" a ", tostring(span_of(" a "):trimmed("")))
    assert.equal("a", tostring(span_of("\0\255a\255"):trimmed(span_of("\255\0"))))
  end)

  it("returns a slice of the same memory", function()
    local span = span_of("  ab  ")
    local trimmed = span:trimmed()
    assert.equal(span.capacity - 2, trimmed.capacity)
    trimmed[1] = ("X"):byte()
    assert.equal("  Xb  ", tostring(span))
    assert.equal(6, #span)
  end)

  it("returns an empty span without capacity where nothing remains", function()
    for _, text in ipairs {"", " ", " \t "} do
      local trimmed = span_of(text):trimmed()
      assert.equal(0, #trimmed)
      assert.equal(0, trimmed.capacity)
    end
  end)

  it("refuses what is no data", function()
    local span = span_of("1")
    for _, value in ipairs(NO_DATA) do
      assert_bad_argument("#2", span.trimmed, span, value)
    end
  end)
end)

describe("equality", function()
  it("compares bytes, not memory nor capacity", function()
    assert.is_true(span_of("a\0b") == span_with_room("a\0b", 9))
    assert.is_true(byte_span.new(0) == byte_span.new(0, 9))
    assert.is_false(span_of("a\0b") == span_of("a\0c"))
    assert.is_false(span_of("a\0b") == span_of("a\0"))
    assert.is_false(span_of("a\0b") ~= span_of("a\0b"))
  end)

  it("with anything but a span is false", function()
    local span = span_of("ab")
    assert.is_false(span == "ab")
    assert.is_false(span == nil)
    assert.is_false(span == {})
    assert.is_false(span == io.stdout)
    assert.is_false(io.stdout == span)
  end)
end)

describe("tostring", function()
  it("gives the bytes, binary ones too", function()
    local all = {}
    for byte = 0, 255 do
      all[byte + 1] = string.char(byte)
    end
    local text = table.concat(all)
    assert.equal(text, tostring(span_of(text)))
    assert.equal(256, #tostring(byte_span.new(256)))
    assert.equal("", tostring(byte_span.new(0)))
    assert.equal("a\0", tostring(span_of("a\0")))
  end)
end)
