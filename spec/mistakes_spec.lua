-- What the library says to mistakes: every public call with wrong types, ranges and order, with a dot for a colon, on
-- sockets that are not open, with the other family, and wrong options, properties and names. The texts are in
-- spec/expected/mistakes.txt, so that a change of any of them is read before it lands:
-- `lua5.4 spec/support/write_mistakes.lua` writes the file anew.
local mistakes = require "spec.support.mistakes"
local platform = require "spec.support.platform"
local support = require "spec.support"

local function lines_of(text)
  local lines = {}
  for line in text:gmatch("[^\n]*") do lines[#lines + 1] = line end
  return lines
end

local it_linux = platform.is_linux and it or pending

describe("a mistake", function()
  it_linux("is answered with what was wrong, the value and the remedy, as the file of texts says", support.with_loop(
    function()
      local file <close> = assert(io.open("spec/expected/mistakes.txt"))
      local expected, got = lines_of(file:read("a")), lines_of(mistakes.text())
      for i, line in ipairs(expected) do
        assert.equal(line, got[i], "line " .. i .. " of spec/expected/mistakes.txt, after " .. (expected[i - 1] or ""))
      end
      assert.equal(#expected, #got)
    end, 60))
end)
