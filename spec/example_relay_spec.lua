-- What udp_relay.lua promises, run as a process.
local ip = require "ip"
local support = require "spec.support"
local examples = require "spec.support.examples"
local platform = require "spec.support.platform"
local process = require "spec.support.process"

local with_loop = support.with_loop
local run_example, start_server = examples.run, examples.start_server
local assert_help, assert_refused = examples.assert_help, examples.assert_refused

local function descriptors_of(pid)
  local pipe <close> = assert(io.popen(("ls /proc/%d/fd | wc -l"):format(pid)))
  return pipe:read("n")
end

describe("udp_relay.lua", function()
  after_each(process.stop_all)

  -- Answers in a fiber of this process: each datagram with what it was and how many its sender has sent.
  -- `seen` counts the datagrams of each sender.
  local function start_counting_server(seen)
    local sock, port = support.bound()
    local server = ip.fiber.spawn(function()
      while true do
        local text, address, from = sock:receive_string()
        seen[from] = (seen[from] or 0) + 1
        sock:send_to(("%s #%d"):format(text, seen[from]), address, from)
      end
    end)
    return port, setmetatable({}, { __close = function()
      server:interrupt()
      server:join()
      sock:close()
    end })
  end

  local function count(set)
    local n = 0
    for _ in pairs(set) do n = n + 1 end
    return n
  end

  local function start_relay(to_port, ...)
    return start_server("udp_relay", "--port", "0", "--to", "127.0.0.1", "--to-port", to_port, "--verbose", ...)
  end

  local function client_of(port)
    return ip.udp.connect("127.0.0.1", port, { receive_timeout = 10 })
  end

  it("has --help and refuses wrong arguments", with_loop(function()
    assert_help("udp_relay")
    assert_refused("udp_relay", "%-%-to HOST expected")
    assert_refused("udp_relay", "%-%-to%-port PORT expected", "--to", "127.0.0.1")
    assert_refused("udp_relay", "%-%-to%-port 0: .*1%.%.65535", "--to", "127.0.0.1", "--to-port", "0")
    assert_refused("udp_relay", "%-%-listen localhost", "--listen", "localhost")
    assert_refused("udp_relay", "%-%-idle 0: .*above 0", "--idle", "0")
    assert_refused("udp_relay", "%-%-clients 0", "--clients", "0")
    assert_refused("udp_relay", "unexpected argument more", "more")
    assert_refused("udp_relay", "unknown option", "--nonsense")
  end, 20))

  it("gives each of 200 clients its own answers, and forgets those that are idle", with_loop(function()
    local seen, clients = {}, {}
    local server_port, server <close> = start_counting_server(seen) -- luacheck: ignore server
    local relay <close>, port = start_relay(server_port, "--idle", 2 * support.patience)
    local before = platform.is_linux and descriptors_of(relay.pid)
    for i = 1, 200 do
      clients[i] = client_of(port)
    end
    for round = 1, 3 do
      for i, client in ipairs(clients) do
        client:send(("client %d round %d"):format(i, round))
      end
      for i, client in ipairs(clients) do
        assert.equal(("client %d round %d #%d"):format(i, round, round), (client:receive_string()))
      end
    end
    assert.equal(200, count(seen)) -- the server saw as many ports
    assert.matches("clients: 200\n", relay:output())
    if before then assert.equal(before + 1 + 200, descriptors_of(relay.pid)) end -- with the first timer's
    local rounds = 3
    relay:poll("the end of idle clients", 20 * support.patience, function() -- the first one keeps talking, and is kept
      rounds = rounds + 1
      clients[1]:send("still here")
      assert.equal("still here #" .. rounds, (clients[1]:receive_string()))
      return relay:output():find("has gone, clients: 1\n", 1, true)
    end)
    assert.equal(200, count(seen))
    relay:wait_for("has gone, clients: 0\n", 20 * support.patience)
    if before then assert.equal(before + 1, descriptors_of(relay.pid)) end
    assert.equal("", relay:errors())
    for _, client in ipairs(clients) do client:close() end
  end, 60))

  it("passes on empty and largest datagrams", with_loop(function()
    local server <close>, server_port = start_server("echo_server", "--port", "0") -- luacheck: ignore server
    local relay <close>, port = start_relay(server_port)
    local client <close> = client_of(port)
    for _, text in ipairs { "", "hello", ("x"):rep(65507), "after" } do
      client:send(text)
      assert.equal(text, (client:receive_string()))
    end
    assert.equal("", relay:errors())
  end, 20))

  it("goes on when the server was not there, and serves no more clients than it was told", with_loop(function()
    local dead = support.dead_port()
    local relay <close>, port = start_relay(dead, "--clients", "1")
    local first <close> = client_of(port)
    local second <close> = client_of(port)
    first:send("nobody is there")
    relay:wait_for("has come, clients: 1\n")
    local server <close> = ip.udp.bind("127.0.0.1", dead)
    support.wait_until(function() -- the first ones may be lost to ECONNREFUSED
      second:send("one too many")
      first:send("hello")
      return server:io_control("bytes_readable") > 0
    end)
    local text, address, from = server:receive_string()
    assert.equal("hello", text)
    server:send_to("welcome", address, from)
    assert.equal("welcome", (first:receive_string()))
    assert.is_nil(relay:output():find("clients: 2", 1, true))
  end, 20))

  it("says where it cannot listen and whom it cannot find", with_loop(function()
    local sock <close>, port = support.bound()
    assert.is_true(sock.is_open)
    local _, errors, code = run_example("udp_relay", "--port", port, "--to", "127.0.0.1", "--to-port", "9")
    assert.equal(1, code)
    assert.matches("^udp_relay%.lua: cannot listen on 127%.0%.0%.1:%d+: .*EADDRINUSE%)\n$", errors)
    _, errors, code = run_example("udp_relay", "--port", "0", "--to", "a..b", "--to-port", "9")
    assert.equal(1, code)
    assert.matches("^udp_relay%.lua: cannot find a%.%.b: .*EAI_", errors)
  end, 20))
end)
