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
    local called, known = {}, {}
    for seed = 1, 4 do
      for name, count in run(seed, 1500, "dirty_end"):match("calls: ([^\n]*)"):gmatch("([%w_.:]+) (%d+)") do
        known[name] = true
        if tonumber(count) > 0 then called[name] = true end
      end
    end
    local missing = {}
    for name in pairs(known) do
      if not called[name] and not NOT_PLAYED[name] then missing[#missing + 1] = name end
    end
    table.sort(missing)
    assert.same({}, missing)
    assert.is_true(next(called) ~= nil)
  end)
end)
