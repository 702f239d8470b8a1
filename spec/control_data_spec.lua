-- Runs the program built from spec/host/control_data.c, which dies of any read outside the ancillary data it was given.

local process = require "spec.support.process"

describe("ancillary data", function()
  teardown(process.stop_all)

  local build = os.getenv("LUA_IP_BUILD")
  local it_built = build ~= nil and it or function(name) pending(name .. " (needs LUA_IP_BUILD)") end

  it_built("that is cut, malformed or unaligned is never read beyond its end, and what is complete counts", function()
    local running <close> = process.start { build .. "/control_data" }
    local code = running:wait(60)
    assert.equal(0, code, running:output() .. running:errors())
    assert.truthy(running:output():find("^%d+ messages\n$"), running:output())
  end)
end)
