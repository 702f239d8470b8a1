-- What the transfers of ip.udp.socket promise together: order among fibers that wait, both directions at once, floods,
-- broadcasts, and the program in the synopsis.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local support = require "spec.support"

local byte_span, fiber = ip.byte_span, ip.fiber
local pair, error_of = support.pair, support.error_of
local with_loop, on_main = support.with_loop, support.on_main
local assert_empty = assertions.assert_empty
local suspended = support.suspended

  local watchdog = "require('ip.fiber').spawn(function() require('ip.fiber').sleep(30) os.exit(1) end):detach()\n"

describe("several fibers that wait on one socket", function()
  it("are served first come, first served", with_loop(function()
    local a, b = pair()
    local served, fibers = {}, {}
    for i = 1, 6 do
      fibers[i] = fiber.spawn(function()
        local text
        if i % 3 == 0 then
          text = b:receive_string()
        else
          local buf = byte_span.new(16)
          text = buf:sub(1, (b[i % 3 == 1 and "receive" or "receive_from"](b, buf)))
        end
        served[#served + 1] = i .. "=" .. text
      end)
    end
    support.wait_until(function() return fibers[6].status == "waiting" end)
    for i = 1, 6 do a:send(tostring(i)) end
    for _, each in ipairs(fibers) do each:join() end
    assert.same({ "1=1", "2=2", "3=3", "4=4", "5=5", "6=6" }, served)
  end))

  it("keep their places when one of them gives up", with_loop(function()
    local a, b = pair()
    local waiting = {}
    for i = 1, 3 do waiting[i] = suspended(b, "receive_string") end
    waiting[2]:interrupt()
    a:send("one")
    a:send("two")
    local _, first = waiting[1]:join()
    local _, third = waiting[3]:join()
    assert.equal("one", first)
    assert.equal("two", third)
    waiting[2]:join()
  end))

  it("are not overtaken by one that comes while datagrams are there", with_loop(function()
    local a, b = pair()
    local waiting = suspended(b, "receive_string")
    a:send("first")
    a:send("second")
    local late = b:receive_string()
    local _, early = waiting:join()
    assert.equal("first", early)
    assert.equal("second", late)
  end))

  it("share one refusal: one of them gets it", with_loop(function()
    local sock <close> = ip.udp.connect("127.0.0.1", support.dead_port())
    local first, second = suspended(sock, "receive_string"), suspended(sock, "receive_string")
    sock:send("x")
    local _, err = first:join()
    assert.equal(ip.error.ECONNREFUSED, err)
    assert.equal("waiting", second.status)
    sock:cancel()
    second:join()
  end))
end)

describe("both directions of one socket", function()
  it("are independent: sends go on while a receive is suspended", with_loop(function()
    local a, b = pair()
    local waiting = suspended(a, "receive_string")
    for i = 1, 20 do
      a:send("out " .. i)
      assert.equal("out " .. i, (b:receive_string()))
    end
    assert.equal("waiting", waiting.status)
    b:send("in")
    local _, text = waiting:join()
    assert.equal("in", text)
  end))

  it("carry a conversation in which each side reads and writes with two fibers", with_loop(function()
    local a, b = pair()
    local count = 200
    local function writer(sock)
      for i = 1, count do
        sock:send(("%d"):format(i))
        if i % 10 == 0 then fiber.yield() end
      end
    end
    local function reader(sock)
      local buf = byte_span.new(8)
      for i = 1, count do
        local n = sock:receive(buf)
        assert.equal(i, tonumber(buf:sub(1, n)))
      end
    end
    local fibers = {
      fiber.spawn(reader, a), fiber.spawn(reader, b), fiber.spawn(writer, a), fiber.spawn(writer, b),
    }
    for _, each in ipairs(fibers) do each:join() end
  end))
end)

describe("a flood", function()
  it("of sends does not starve the other fibers", with_loop(function()
    local a = pair()
    local turns = support.turns_during(function()
      for _ = 1, 2000 do a:send("x") end
    end)
    assert.is_true(turns >= 5, "turns of the other fiber: " .. turns)
  end))

  it("of receives does not starve the other fibers, and nothing is lost by giving way", with_loop(function()
    local a, b = pair()
    local received = 0
    local turns = support.turns_during(function()
      for _ = 1, 20 do
        for _ = 1, 100 do assert(a:try_send("x")) end
        for _ = 1, 100 do
          b:receive_string()
          received = received + 1
        end
      end
    end)
    assert.equal(2000, received)
    assert.is_true(turns >= 5, "turns of the other fiber: " .. turns)
    assert_empty(b)
  end))

  it("does not starve deadlines", with_loop(function()
    local a, b = pair()
    local err = error_of(fiber.with_timeout, 0.02, function()
      while true do
        a:send("x")
        b:receive_string()
      end
    end)
    assert.equal(ip.error.ETIMEDOUT, err)
    while b:try_receive(byte_span.new(1)) do fiber.yield() end
  end))
end)

describe("a broadcast", function()
  it("is sent and received once the option is set", with_loop(function()
    local receiver <close> = ip.udp.bind("0.0.0.0", 0)
    local sender <close> = ip.udp.bind("0.0.0.0", 0, { broadcast = true })
    sender:send_to("to all", "127.255.255.255", receiver.local_port)
    local text, address = receiver:receive_string()
    assert.equal("to all", text)
    assert.equal("127.0.0.1", tostring(address))
  end))
end)

describe("the synopsis", function()
  local synopsis = [[
local sock = ip.udp.socket.new()
sock:open('v4')
sock:bind(ip.address.any_v4(), PORT)

local buf = byte_span.new(1024)
local nread, remote_addr, remote_port = sock:receive_from(buf)
sock:send_to(buf:slice(1, nread), remote_addr, remote_port)
]]

  -- A port that is free now is asked for by number, as the synopsis does.
  local function program()
    local names = "local ip = require 'ip'\nlocal byte_span = ip.byte_span\n"
    return names .. (synopsis:gsub("PORT", ("%d"):format(support.dead_port())))
  end

  -- Pings until the server is there and answers; nil after some seconds.
  local function talk_to(port)
    local client <close> = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 0.01 })
    for _ = 1, 1000 do
      client:send_to("ping", "127.0.0.1", port)
      local ok, text = pcall(client.receive_string, client)
      if ok then return text end
    end
  end

  it("works as a script of its own", on_main(function()
    local source = program()
    local path = support.write_file(watchdog .. source)
    local pipe = assert(io.popen(("%s %s 2>&1"):format(support.interpreter, path)))
    local text = talk_to(tonumber(source:match("any_v4%(%), (%d+)")))
    assert.equal("", pipe:read("a"))
    assert.is_true(pipe:close())
    os.remove(path)
    assert.equal("ping", text)
  end, 30))

  it("works on the main thread next to fibers", on_main(function()
    local source = program()
    local client = fiber.spawn(talk_to, tonumber(source:match("any_v4%(%), (%d+)")))
    assert(load(source))()
    assert.equal("ping", client:join())
  end))

  it("works in a fiber", with_loop(function()
    local source = program()
    local server = fiber.spawn(assert(load(source)))
    assert.equal("ping", talk_to(tonumber(source:match("any_v4%(%), (%d+)"))))
    server:join()
  end))

  it("works in a coroutine that somebody else made", with_loop(function()
    local source = program()
    local server = coroutine.create(assert(load(source)))
    assert.is_true(coroutine.resume(server))
    assert.equal("ping", talk_to(tonumber(source:match("any_v4%(%), (%d+)"))))
    assert.equal("dead", coroutine.status(server))
  end))

end)
