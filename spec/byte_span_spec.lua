-- What byte_span promises of spans: their bytes, slices and sizes.
local byte_span = require "byte_span"
local assertions = require "spec.support.assertions"
local memory = require "spec.support.memory"
local spans = require "spec.support.spans"

local assert_bad_argument, assert_message = assertions.assert_bad_argument, assertions.assert_message
local NO_INTEGERS, NO_DATA = spans.NO_INTEGERS, spans.NO_DATA
local span_of, span_with_capacity = spans.span_of, spans.span_with_capacity

local MAX_SIZE = math.maxinteger == 0x7fffffffffffffff and 0x7fffffffffff or 0x3fffffff

local function index(span, i)
  return span[i]
end

local function set_index(span, i, value)
  span[i] = value
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
      assert_bad_argument(1, nil, byte_span.new, value)
      assert_bad_argument(2, nil, byte_span.new, 1, value)
    end
    assert_bad_argument(1, nil, byte_span.new)
    assert_bad_argument(1, nil, byte_span.new, nil, 5)
    assert_bad_argument(1, nil, byte_span.new, -1)
    assert_bad_argument(1, nil, byte_span.new, math.mininteger)
    assert_bad_argument(2, nil, byte_span.new, 0, -1)
    assert_bad_argument(2, nil, byte_span.new, 5, 4)
  end)

  it("refuses sizes past the address space", function()
    for _, size in ipairs {MAX_SIZE + 1, 1 << 62, math.maxinteger - 64, math.maxinteger} do
      assert_bad_argument(1, nil, byte_span.new, size)
      assert_bad_argument(2, nil, byte_span.new, 0, size)
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
      assert_message(("byte_span index %d is outside 1..4"):format(i), index, span, i)
      assert_message(("byte_span index %d is outside 1..4"):format(i), set_index, span, i, 0)
    end
    assert_message("byte_span index 1 is outside 1..0", index, byte_span.new(0), 1)
    assert.equal(("\0"):rep(8), tostring(span:slice(1, 8)))
  end)

  it("that has no integer value is an error", function()
    local span = byte_span.new(4)
    for _, i in ipairs {1.5, 0 / 0, 1 / 0, 1e300} do
      assert_message("byte_span index: integer expected, got number", index, span, i)
      assert_message("byte_span index: integer expected, got number", set_index, span, i, 0)
    end
  end)

  it("takes a byte and nothing else", function()
    local span = byte_span.new(1)
    span[1] = 7
    for _, value in ipairs {-1, 256, 1.5, "80", "a", true, {}, math.maxinteger, math.mininteger, 256 + 7} do
      assert_message("byte of a byte_span: integer within 0..255 expected", set_index, span, 1, value)
    end
    assert_message("byte of a byte_span: integer within 0..255 expected, got nil", set_index, span, 1, nil)
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
        local text = "calling '" .. name .. "' on bad self (byte_span expected"
        assert_message(text, span[name], self, table.unpack(arguments))
      end
      assert_message("calling '" .. name .. "' on bad self (byte_span expected, got no value)", span[name])
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
        assert_bad_argument(nil, "byte_span expected", metatable[event], self, 1, 1)
      end
    end
    assert_bad_argument(nil, "byte_span expected", metatable.__index, io.stdout, "capacity")
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
      assert_bad_argument(1, nil, slice, span, table.unpack(range))
    end
    for _, range in ipairs {{1, 7}, {1, -1}, {3, 1}, {7, 5}, {1, math.maxinteger}, {1, math.mininteger}} do
      assert_bad_argument(2, nil, slice, span, table.unpack(range))
    end
    for _, value in ipairs(NO_INTEGERS) do
      assert_bad_argument(1, nil, slice, span, value)
      assert_bad_argument(2, nil, slice, span, 1, value)
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
    local before = memory.used()
    for _ = 1, 20 do
      byte_span.new(1 << 20):slice(5, 6)
    end
    assert.is_true(memory.used() - before < 1024)
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
      assert_bad_argument(1, nil, span.resize, span, value)
    end
    assert_bad_argument(1, nil, span.resize, span)
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
      assert_bad_argument(nil, "string or byte_span expected", span.copy, span, value)
    end
    assert_bad_argument(nil, "string or byte_span expected", span.copy, span)
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
      assert_bad_argument(1, nil, span.fill, span, value)
    end
    assert_bad_argument(1, nil, span.fill, span)
    assert.equal("ab", tostring(span))
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
      assert_bad_argument(1, nil, span.trimmed, span, value)
    end
  end)
end)

describe("equality", function()
  it("compares bytes, not memory nor capacity", function()
    assert.is_true(span_of("a\0b") == span_with_capacity("a\0b", 9))
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
