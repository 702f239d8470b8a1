-- Listeners with many peers, and in a flood of forged ones. Programs run in processes of their own, since what they
-- needed stays in the library's pools. Counts alone are judged.

local platform = require "spec.support.platform"
local scale = require "spec.support.scale"

local it_linux, is_watched = platform.it_linux, platform.is_watched
local run, assert_bytes = scale.run, scale.assert_bytes

describe("a listener #slow", function()
  it_linux("serves ten thousand sessions with a fiber each, and needs no more memory after the first round", function()
    local values = run("many_sessions", 10000)
    assert.equal(10000, values.known)
    assert.equal(0, values.wrong)
    assert.is_true(values.garbage <= 2048, ("grown by %d bytes"):format(values.garbage))
    assert_bytes(1 << 18, values.growth, "three more rounds")
  end)

  it_linux("goes on serving its sessions in a flood from new endpoints, with bounded memory, and counts", function()
    local count = is_watched and 40000 or 200000
    local values = run("flooded_listener", count)
    assert.equal(3 * count // 50, values.served)
    assert.equal(count - (10000 - 3), values.dropped)
    assert.is_true(values.garbage <= 4096, ("grown by %d bytes"):format(values.garbage))
    assert_bytes(1 << 18, values.growth, "the flood after the table of sessions was full")
  end)
end)
