-- The fuzzer itself: it plays everything there is.
local support = require "spec.support"

-- What no run has to play, with the reason.
local NOT_PLAYED = {}

local function run(seed, steps, without)
  local program = ("arg = { [0] = 'run.lua', %d, %d } dofile 'spec/fuzz/run.lua'"):format(seed, steps)
  local output, code = support.run_program(program, "", "ulimit -n 200 && export FUZZ_WITHOUT=" .. without)
  if code ~= 0 then error(output, 0) end
  return output
end

describe("The fuzzer #slow", function()
  it("calls every public function and reads every property", function()
    local left, seed, missing = {}, 0
    repeat -- what a run plays is a matter of chance: the more runs, the more certain
      seed = seed + 1
      for name, count in run(seed, 1500, "dirty_end"):match("calls: ([^\n]*)"):gmatch("([%w_.:]+) (%d+)") do
        left[name] = left[name] ~= false and tonumber(count) == 0 and not NOT_PLAYED[name]
      end
      missing = {}
      for name, is_left in pairs(left) do
        if is_left then missing[#missing + 1] = name end
      end
      table.sort(missing)
    until seed >= 4 and (#missing == 0 or seed == 16)
    assert.is_true(next(left) ~= nil)
    assert.same({}, missing)
  end)
end)
