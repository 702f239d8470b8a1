-- What echo_server.lua and echo_client.lua promise, run as processes.
local ip = require "ip"
local support = require "spec.support"
local examples = require "spec.support.examples"
local platform = require "spec.support.platform"
local process = require "spec.support.process"

local with_loop = support.with_loop
local example, run_example, start_server = examples.words, examples.run, examples.start_server

describe("echo_server.lua and echo_client.lua", function()
  after_each(process.stop_all)

  local function echo_all(address)
    local server <close>, v4, v6 = start_server("echo_server", "--address", address, "--port", "0")
    local output, errors, code = run_example("echo_client", "--address", address, "--port", v4 or v6,
      "--count", "300", "--in-flight", "10", "--size", "700")
    assert.equal(0, code)
    assert.equal("", errors) -- no progress line: stderr is a file
    assert.matches("^300 sent, 300 received, 0 lost %(0%.0 %%%)\n", output)
    assert.equal("", server:errors())
    assert.matches("round trip: min %d+%.%d+ ms, median %d+%.%d+ ms, p99 %d+%.%d+ ms, max %d+%.%d+ ms\n$", output)
  end

  it("work together over v4", with_loop(function() echo_all("127.0.0.1") end, 30))

  platform.it_v6("work together over v6", with_loop(function() echo_all("::1") end, 30))

  it("echo empty and largest datagrams, also after a sender has gone", with_loop(function()
    local server <close>, port = start_server("echo_server", "--port", "0")
    local gone = ip.udp.connect("127.0.0.1", port)
    gone:send("nobody is there for the answer")
    gone:close()
    local sock <close> = ip.udp.connect("127.0.0.1", port, { receive_timeout = 5 })
    for _, text in ipairs { "", "hello", ("x"):rep(65507), "after" } do
      sock:send(text)
      assert.equal(text, (sock:receive_string()))
    end
    assert.equal("", server:errors())
  end))

  it("say where the server cannot listen", with_loop(function()
    local sock <close>, port = support.bound()
    local output, errors, code = run_example("echo_server", "--port", port)
    assert.is_true(sock.is_open)
    assert.equal(1, code)
    assert.equal("", output)
    assert.matches("^echo_server%.lua: cannot listen on 127%.0%.0%.1:" .. port .. ": .*EADDRINUSE%)\n$", errors)
  end))

  -- answer(reply, data, sequence) is called for each datagram of the client.
  local function measure(answer, ...)
    local options = { ... }
    return examples.run_against(function(sock)
      while true do
        local data, address, port = sock:receive_string()
        local _, sequence = string.unpack(">I4 I4", data)
        answer(function(text) sock:send_to(text, address, port) end, data, sequence)
      end
    end, function(port)
      return example("echo_client", "--port", port, table.unpack(options))
    end)
  end

  it("count what is lost", with_loop(function()
    local output, _, code = measure(function(reply, data, sequence)
      if sequence % 5 ~= 0 then reply(data) end
    end, "--count", "20", "--in-flight", "4", "--timeout", "0.5")
    assert.equal(0, code)
    assert.matches("^20 sent, 16 received, 4 lost %(20%.0 %%%)\nlost: 4 ETIMEDOUT\nround trip", output)
  end, 30))

  it("count duplicates, late answers and what is foreign", with_loop(function()
    local kept
    local output, _, code = measure(function(reply, data, sequence)
      if sequence == 2 then
        kept = data -- is answered after the next one was sent: too late
        return
      end
      if sequence == 3 then
        reply(kept)
        reply(kept) -- a duplicate
      elseif sequence == 4 then
        reply("")
        reply("short")
        reply(data .. "x") -- claims to be the answer and is not
        reply(string.pack(">I4 I4 d", 0, 1, 0) .. data:sub(17)) -- of another run
      end
      reply(data)
      if sequence == 1 then reply(data) end
    end, "--count", "5", "--timeout", "1")
    assert.equal(0, code)
    assert.matches("^5 sent, 4 received, 1 lost %(20%.0 %%%)\nlost: 1 ETIMEDOUT\n"
      .. "also received: 2 duplicates, 1 too late, 4 foreign\n", output)
  end, 30))

  it("exit with 1 when nothing comes back", with_loop(function()
    local output, _, code = measure(function() end, "--count", "2", "--timeout", "0.1")
    assert.equal(1, code)
    assert.equal("2 sent, 0 received, 2 lost (100.0 %)\nlost: 2 ETIMEDOUT\n", output)
  end, 30))

  it("say that nobody listens", with_loop(function()
    local output, _, code = run_example("echo_client", "--port", support.dead_port(), "--count", "3")
    assert.equal(1, code)
    assert.equal("3 sent, 0 received, 3 lost (100.0 %)\nlost: 3 ECONNREFUSED\n", output)
  end))

  it("keep the interval", with_loop(function()
    local server <close>, port = start_server("echo_server", "--port", "0")
    local before = ip.fiber.now()
    local _, _, code = run_example("echo_client", "--port", port, "--count", "6", "--interval", "0.1")
    assert.equal(0, code)
    assert.truthy(ip.fiber.now() - before >= 0.5)
    assert.truthy(server:is_running())
  end))

  it("show what was measured up to Ctrl-C", with_loop(function()
    local sock <close>, port = support.bound()
    local client <close> = process.start(example("echo_client", "--port", port, "--interval", "0.01",
      "--count", "100000"))
    for _ = 1, 3 do -- at the third question the client has two answers
      local data, address, from = sock:receive_string()
      sock:send_to(data, address, from)
    end
    client:signal("INT")
    assert.equal(130, client:wait())
    assert.matches("^[2-9] sent, [2-9] received", client:output())
    assert.equal("", client:errors())
  end))
end)
