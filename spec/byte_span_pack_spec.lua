-- What sub, pack and unpack of a span promise: what string.sub, string.pack and string.unpack do.
local byte_span = require "byte_span"
local assertions = require "spec.support.assertions"
local spans = require "spec.support.spans"

local assert_bad_argument = assertions.assert_bad_argument
local NO_INTEGERS, NO_DATA = spans.NO_INTEGERS, spans.NO_DATA
local span_of, span_with_capacity, expect_equal = spans.span_of, spans.span_with_capacity, spans.expect_equal

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
    assert.equal("", span_with_capacity("ab", 4):sub(3, 4))
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
      assert_bad_argument(1, nil, span.sub, span, value)
      assert_bad_argument(2, nil, span.sub, span, 1, value)
    end
    assert_bad_argument(1, nil, span.sub, span)
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
    assert_bad_argument(nil, "initial position out of span", span.unpack, span, "", 4)
  end)

  it("names what is wrong, and where it was called", function()
    local span = span_of("ab")
    local ok, message = pcall(function() return span:unpack("I4") end)
    assert.is_false(ok)
    assert.truthy(message:match("byte_span_pack_spec%.lua:%d+: .*data string too short"), message)
    ok, message = pcall(function() return span:unpack("?") end)
    assert.is_false(ok)
    assert.truthy(message:match("byte_span_pack_spec%.lua:%d+: .*invalid format option"), message)
  end)

  it("refuses what is no format and no position", function()
    local span = span_of("abcd")
    for _, value in ipairs(NO_DATA) do
      assert_bad_argument(1, nil, span.unpack, span, value)
    end
    assert_bad_argument(1, nil, span.unpack, span)
    for _, value in ipairs(NO_INTEGERS) do
      assert_bad_argument(2, nil, span.unpack, span, "B", value)
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
    local span = span_with_capacity("abc", 8)
    assert_bad_argument(nil, "4 bytes needed, 2 available", span.pack, span, 2, "I4", 1)
    assert_bad_argument(nil, "1 bytes needed, 0 available", span.pack, span, 4, "B", 1)
    assert_bad_argument(nil, "8 bytes needed, 3 available", span.pack, span, 1, "z", "1234567")
    assert.equal("abc\0\0\0\0\0\0\0\0", tostring(span:slice(1, 11)))
  end)

  it("of bad values changes nothing and says where it was called", function()
    local span = span_of("abcdefgh")
    for _, arguments in ipairs {
      {"B B", 1, 256}, {"B B", 1}, {"B i4", 1, "x"}, {"B ?", 1}, {"B I17", 1, 1}, {"B z", 1, "\0"},
    } do
      local ok, message = pcall(function() return span:pack(1, table.unpack(arguments)) end)
      assert.is_false(ok, arguments[1])
      assert.truthy(message:match("^[^:]*byte_span_pack_spec%.lua:%d+: "), message)
    end
    assert.equal("abcdefgh", tostring(span))
  end)

  it("refuses what is no position and no format", function()
    local span = span_of("abcd")
    for _, value in ipairs {0, -1, 6, math.maxinteger, math.mininteger, table.unpack(NO_INTEGERS)} do
      assert_bad_argument(1, nil, span.pack, span, value, "B", 1)
    end
    for _, value in ipairs(NO_DATA) do
      assert_bad_argument(2, nil, span.pack, span, 1, value, 1)
    end
    assert_bad_argument(1, nil, span.pack, span)
    assert_bad_argument(2, nil, span.pack, span, 1)
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
