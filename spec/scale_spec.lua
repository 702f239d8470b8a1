-- Large numbers: fibers that sleep, peers of one socket, sockets with a fiber each. Counts alone are judged. Programs
-- run in processes of their own, since what they needed stays in the library's pools.

local platform = require "spec.support.platform"
local scale = require "spec.support.scale"

local it_linux, is_watched = platform.it_linux, platform.is_watched
local run, assert_bytes = scale.run, scale.assert_bytes

describe("very many fibers that sleep #slow", function()
  it("all wake, in the order of their deadlines and never early, and need bounded memory", function()
    local count = is_watched and 10000 or 100000
    local values = run("sleeping_fibers", count)
    assert.equal(count, values.woken)
    assert.equal(0, values.early)
    assert.equal(0, values.late)
    assert_bytes(2048, values.each, "a fiber that sleeps")
    assert_bytes(200, values.growth, "two more rounds, for each fiber")
  end)
end)

describe("one socket with ten thousand peers #slow", function()
  it_linux("has the right counter for each, and needs no more memory after the first round", function()
    local values = run("many_peers", 10000)
    assert.equal(10000, values.known)
    assert.equal(0, values.wrong)
    assert.is_true(values.garbage <= 1024, ("grown by %d bytes"):format(values.garbage))
    assert_bytes(1 << 18, values.growth, "three more rounds")
  end)
end)

describe("ten thousand sockets with a fiber each #slow", function()
  local more_descriptors = "ulimit -n 10200"

  it("all are served, again and again, and need no more memory after the first round", function()
    if not os.execute("(" .. more_descriptors .. ") 2>/dev/null") then
      return pending("the system permits no 10000 descriptors")
    end
    local values = run("many_sockets", 10000, more_descriptors)
    assert.equal(40000, values.right)
    assert.equal(0, values.failed)
    assert_bytes(1 << 20, values.growth, "three more rounds")
  end)
end)
