-- Runs the program built from spec/host/channel_paths.c, which links the files below the calls of Lua alone.

local process = require "spec.support.process"

describe("what works on a channel", function()
  teardown(process.stop_all)

  local build = os.getenv("LUA_IP_BUILD")
  local it_built = build ~= nil and it or function(name) pending(name .. " (needs LUA_IP_BUILD)") end

  it_built("keeps its promises in a program without Lua and without libuv", function()
    local running <close> = process.start { build .. "/channel_paths" }
    local code = running:wait(30)
    assert.equal(0, code, running:output() .. running:errors())
    assert.truthy(running:output():find("ok the association is dissolved\n", 1, true), running:output())
  end)
end)
