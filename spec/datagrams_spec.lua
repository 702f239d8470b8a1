-- What datagrams promises beside spec/loop_spec.lua.
local ip = require "ip"
local loops = require "spec.support.loops"
local support = require "spec.support"

local fiber = ip.fiber
local with_loop = support.with_loop
local receiver, waiting = support.receiver, support.waiting

-- Sends each of these texts.
local function send_all(client, texts)
  for _, text in ipairs(texts) do client:send(text) end
end

local function loop(sock, take, config)
  for data in sock:datagrams(config) do take(data) end
end

local function never() return false end

describe("datagrams", function()
  it("makes no garbage per datagram", with_loop(function()
    assert.equal(0, loops.garbage(loop, { max_ready = 8, stop = never }))
  end))

  it("makes no garbage where it waits for each datagram", with_loop(function()
    assert.equal(0, loops.garbage_of_waits(loop, { stop = never }))
  end))

  it("is the same span in each turn, which shows that turn's datagram", with_loop(function()
    local sock, client = receiver()
    send_all(client, { "long one", "two", "three" })
    local spans, lengths = {}, {}
    for data in sock:datagrams() do
      spans[data] = true
      lengths[#lengths + 1] = #data
      if #lengths == 3 then break end
    end
    assert.is_nil(next(spans, (next(spans))))
    assert.same({ 8, 3, 5 }, lengths)
    sock:close()
    client:close()
  end))

  it("may be left and begun again, and may wait in its turn", with_loop(function()
    local sock, client = receiver()
    send_all(client, { "a", "b" })
    local seen
    for data in sock:datagrams() do
      fiber.sleep(0.001)
      seen = tostring(data)
      if seen == "a" then break end
    end
    assert.equal("a", seen)
    for data in sock:datagrams() do
      assert.equal("b", tostring(data))
      sock:close()
    end
    client:close()
  end))

  it("shares a socket among loops, first come, first served", with_loop(function()
    local sock, client = receiver()
    local order = {}
    for i = 1, 2 do
      waiting(function()
        for data in sock:datagrams() do order[#order + 1] = i .. tostring(data) end
      end)
    end
    for i, text in ipairs { "a", "b", "c" } do
      client:send(text)
      support.wait_until(function() return #order == i end)
    end
    assert.same({ "1a", "2b", "1c" }, order)
    sock:close()
    fiber.yield()
    fiber.yield()
    client:close()
  end))
end)
