-- What the search functions of a span promise, compared with a model of them on strings.
local byte_span = require "byte_span"
local assertions = require "spec.support.assertions"
local spans = require "spec.support.spans"

local assert_bad_argument = assertions.assert_bad_argument
local NO_INTEGERS, NO_DATA = spans.NO_INTEGERS, spans.NO_DATA
local span_of, span_with_capacity, expect_equal = spans.span_of, spans.span_with_capacity, spans.expect_equal

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
      assert_bad_argument(1, nil, span.starts_with, span, value)
      assert_bad_argument(1, nil, span.ends_with, span, value)
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
    local span = span_with_capacity("abc", 8)
    for _, name in ipairs(FORWARD) do
      for _, first in ipairs {0, -1, 5, 8, math.maxinteger, math.mininteger, table.unpack(NO_INTEGERS)} do
        assert_bad_argument(2, nil, span[name], span, "a", first)
      end
    end
    for _, name in ipairs(BACKWARD) do
      for _, last in ipairs {-1, 4, 8, math.maxinteger, math.mininteger, table.unpack(NO_INTEGERS)} do
        assert_bad_argument(2, nil, span[name], span, "a", last)
      end
    end
  end)

  it("refuse what is no data", function()
    local span = span_of("1")
    for _, names in ipairs {FORWARD, BACKWARD} do
      for _, name in ipairs(names) do
        for _, value in ipairs(NO_DATA) do
          assert_bad_argument(1, nil, span[name], span, value)
        end
        assert_bad_argument(1, nil, span[name], span)
      end
    end
  end)
end)
