-- What span:append and byte_span.append promise, also when a finalizer resizes spans meanwhile.
local byte_span = require "byte_span"
local assertions = require "spec.support.assertions"
local spans = require "spec.support.spans"

local assert_bad_argument = assertions.assert_bad_argument
local NO_DATA = spans.NO_DATA
local span_of, span_with_capacity, expect_equal = spans.span_of, spans.span_with_capacity, spans.expect_equal

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

describe("span:append", function()
  it("appends strings and spans; nil contributes nothing", function()
    local span = span_of("ab"):slice(1, 2)
    assert.equal("abcd\0efgh", tostring(span:append("cd", nil, "\0", span_of("ef"), "", nil, "gh", nil)))
    assert.equal("ab", tostring(span))
  end)

  it("returns a new span, also where there is nothing to append", function()
    local span = span_with_capacity("ab", 2)
    for _, result in ipairs {span:append(), span:append(nil), span:append(""), span:append("x")} do
      assert.is_false(rawequal(span, result))
      assert.equal("ab", result:sub(1, 2))
      assert.equal(4, result.capacity)
    end
  end)

  it("works in place where the capacity suffices", function()
    local span = span_with_capacity("ab", 4)
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

  it("makes a new block with capacity to grow where it does not suffice", function()
    local span = span_with_capacity("ab", 1)
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
    local span = span_with_capacity("abc", 3)
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
    local span = span_with_capacity("ab", 16)
    for _, value in ipairs(NO_DATA) do
      assert_bad_argument(2, nil, span.append, span, "XY", value, "Z")
    end
    assert_bad_argument(nil, "string, byte_span or nil expected", span.append, span, 5)
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
    local span = span_with_capacity("ab", 8)
    local result = byte_span.append(span, "cd")
    assert.equal("abcd", tostring(result))
    assert.equal("ab\0\0", tostring(span:slice(1, 4)))
    result[1] = 0
    assert.equal("ab", tostring(span))
  end)

  it("leaves capacity to grow", function()
    local span = byte_span.append("ab")
    assert.is_true(span.capacity > 2)
    local longer = span:append("c")
    longer[1] = ("X"):byte()
    assert.equal("Xb", tostring(span))
  end)

  it("refuses what is no data", function()
    for _, value in ipairs(NO_DATA) do
      assert_bad_argument(1, nil, byte_span.append, value)
      assert_bad_argument(2, nil, byte_span.append, "a", value)
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
    local part, span = byte_span.new(8, 64), span_with_capacity("ab", 8)
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
