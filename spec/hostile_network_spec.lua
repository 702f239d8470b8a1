-- What a network may send to one socket: storms of forged ICMP errors, and more peers than anybody could know. Each
-- attack runs in a network namespace of its own. Linux, as root.

local hosts = require "spec.support.hosts"
local namespace = require "spec.support.namespace"
local netns = require "spec.support.netns"
local platform = require "spec.support.platform"
local support = require "spec.support"

local it_forged = platform.it_where(platform.is_linux and netns.is_permitted() and hosts.path("raw_sender"),
  "network namespaces and raw sockets")

-- What the programs share. `storm` sends forged ICMP errors about datagrams from one port to another, which nobody
-- has sent. `peers` sends a datagram of each of so many peers, `at_once` at a time, and calls `take` after each time.
local PRELUDE = ([[
  local ip = require "ip"
  local fiber = ip.fiber
  local resident = require "spec.support.resident"
  local most = %s -- bytes by which the process may grow; a tool that watches it keeps what was freed
  local raw_sender = "env LD_PRELOAD= %s "
  local function storm(count, from_port, to_port)
    assert(os.execute(raw_sender .. ("storm %%d 127.0.0.1 %%d 127.0.0.1 %%d"):format(count, from_port, to_port)))
  end
  local function peers(port, first, count, at_once, take)
    local sender <close> = assert(io.popen(raw_sender .. ("peers 127.0.0.1 %%d"):format(port), "w"))
    for number = first, first + count - 1, at_once do
      sender:write(number, " ", at_once, "\n")
      sender:flush()
      take(at_once)
    end
  end
]]):format(platform.is_watched and "math.huge" or "1000000", hosts.path("raw_sender") or "")

-- Runs a program in a namespace; fails with what it says unless it succeeds.
local function survives(program)
  return support.on_main(function()
    local network <close> = assert(netns.new())
    local output, code = namespace.run_program(network, PRELUDE .. program)
    assert.equal(0, code, output)
  end, 100)
end

local STORM = [[
  local peer = ip.udp.bind("127.0.0.1", 0)
  local sock = ip.udp.connect("127.0.0.1", peer.local_port, options)
  peer:connect("127.0.0.1", sock.local_port)
  local function exchange(text) -- what is asked in a storm is answered, and each error is that of one call
    for _ = 1, 2000 do
      local sent = pcall(sock.send, sock, text)
      if sent then
        assert(peer:receive_string() == text)
        peer:send(text)
        for _ = 1, 2000 do
          local ok, got = pcall(sock.receive_string, sock)
          if ok then
            assert(got == text)
            return
          end
          assert(got.category == "system" and got ~= ip.error.EBADF, tostring(got))
        end
      end
    end
    error "the storm has not ended"
  end
]]

describe("a storm of forged ICMP errors #slow", function()
  for _, name in ipairs { "without receive_errors", "with receive_errors" } do
    local open = ("local options = { receive_errors = %s }\n"):format(name:find("with ") ~= nil) .. STORM

    it_forged("about its own peer neither ends nor starves a connected socket " .. name, survives(open .. [[
      for round = 1, 20 do
        storm(1000, sock.local_port, peer.local_port)
        exchange("question " .. round)
      end
    ]]))

    it_forged("about a peer that it does not have never reaches a connected socket " .. name, survives(open .. [[
      storm(2000, sock.local_port, 7)
      storm(2000, sock.local_port, sock.local_port)
      storm(2000, 7, peer.local_port)
      for _ = 1, 100 do
        sock:send("x")
        assert(peer:receive_string() == "x")
        peer:send("y")
        assert(sock:receive_string() == "y")
      end
    ]]))

    it_forged("does not make a loop spin that waits for something else " .. name, survives(open .. [[
      local span = ip.byte_span.new(10)
      pcall(sock.try_receive, sock, span)
      local waiting = fiber.spawn(pcall, sock.receive, sock, span)
      while waiting.status ~= "waiting" do fiber.loop:step(0) end
      storm(1000, sock.local_port, peer.local_port)
      local over = false
      fiber.spawn(function()
        fiber.sleep(0.3)
        over = true
      end):detach()
      local steps = 0
      while not over do
        fiber.loop:step(10)
        steps = steps + 1
      end
      assert(steps < 20, "the loop woke up " .. steps .. " times")
      local ok, err = waiting:join()
      assert(not ok and err.category == "system", tostring(err))
      exchange "still there"
    ]]))

    it_forged("takes no memory " .. name, survives(open .. [[
      local function many()
        for _ = 1, 10 do storm(1000, sock.local_port, peer.local_port) pcall(sock.receive_string, sock, 10) end
      end
      sock.receive_timeout = 0.001
      many()
      local before, resident_before = collectgarbage "count", resident()
      many()
      many()
      assert(resident() < resident_before + most)
      assert(collectgarbage "count" < before + 50)
      sock.receive_timeout = 10
      exchange "still there"
    ]]))
  end
end)

-- The first call notes the memory of the process, and the second compares.
local BOUNDED = [[
  local before
  local function check()
    if before then
      local grown = resident() - before
      assert(grown < most, "the process has grown by " .. grown .. " bytes")
    else
      before = resident()
    end
  end
]]

describe("a socket with 100,000 peers #slow", function()
  it_forged("knows each of them, and grows for none", survives(BOUNDED .. [[
    local sock = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 10 })
    local span, seen, count = ip.byte_span.new(100), nil, 0
    local function take(expected)
      for _ = 1, expected do
        local n, address, port = sock:receive_from(span)
        assert(n == 1 and address.is_loopback and port >= 1024)
        count = count + 1
        if seen then seen[ip.endpoint_key(address, port)] = true end
      end
    end
    peers(sock.local_port, 0, 20000, 100, take)
    check()
    peers(sock.local_port, 20000, 80000, 100, take)
    check()
    assert(count == 100000)
    seen = {}
    peers(sock.local_port, 0, 2000, 100, take)
    local distinct = 0
    for _ in pairs(seen) do distinct = distinct + 1 end
    assert(distinct == 2000, distinct)
  ]]))

  it_forged("answers each of them by serve, and grows for none", survives(BOUNDED .. [[
    local sock, served = ip.udp.bind("127.0.0.1", 0), 0
    local server = fiber.spawn(sock.serve, sock, function(data)
      served = served + 1
      return data
    end)
    local expected = 0
    local function take(more)
      expected = expected + more
      while served < expected do fiber.loop:step(1) end
    end
    peers(sock.local_port, 0, 20000, 100, take)
    check()
    peers(sock.local_port, 20000, 80000, 100, take)
    check()
    assert(server.status ~= "dead")
    sock:close()
    server:join()
  ]]))

  it_forged("has as many sessions as it allows, serves these, and drops what others send", survives(BOUNDED .. [[
    local listener = ip.udp.listen("127.0.0.1", 0, { max_sessions = 1000, session_capacity = 2 })
    local sessions, received = {}, 0
    fiber.spawn(function()
      for session in listener:sessions() do
        sessions[#sessions + 1] = session
        fiber.spawn(function()
          while true do
            session:receive_string()
            received = received + 1
          end
        end):detach()
      end
    end):detach()
    local client = ip.udp.connect("127.0.0.1", listener.local_port, { receive_timeout = 10 })
    client:send "first"
    while #sessions < 1 do fiber.loop:step(1) end
    local expected = 1
    local function take(more)
      expected = expected + more
      while received + listener.dropped < expected do fiber.loop:step(1) end
    end
    peers(listener.local_port, 0, 20000, 100, take)
    check()
    peers(listener.local_port, 20000, 80000, 100, take)
    check()
    assert(#sessions == 1000 and received == 1000, #sessions)
    assert(listener.dropped == 99001, listener.dropped)
    sessions[2]:close() -- and one more may come
    peers(listener.local_port, 99999, 1, 1, take)
    assert(#sessions == 1001)
    client:send "still there"
    expected = expected + 1
    while received + listener.dropped < expected do fiber.loop:step(1) end
    sessions[1]:send "answer"
    assert(client:receive_string() == "answer")
  ]]))
end)
