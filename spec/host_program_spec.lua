-- lua_ip.h: a C host with an event loop of its own (spec/host/loop_host.c) runs the library on it.

local hosts = require "spec.support.hosts"
local platform = require "spec.support.platform"
local support = require "spec.support"

-- Runs a program in the host; returns its output and exit code.
local function run_host(source)
  local path = support.write_file("local ip = require 'ip' local fiber = ip.fiber\n" .. source)
  local output, code = support.read_command(("timeout 60 %s %s/ip/core.so %s 2>&1"):format(
    hosts.path("loop_host"), hosts.build, path))
  os.remove(path)
  return support.without_places(output, path), code
end

-- Fails unless a program in the host writes just that, and ends well.
local function host_prints(expected, source)
  local output, code = run_host(source)
  assert.equal(expected, output)
  assert.equal(0, code)
end

local it_host = platform.is_linux and hosts.it("loop_host") or pending

describe("a C host's own loop", function()
  it_host("runs fibers, their sockets and timers beside the host's own timer", function()
    host_prints("done\ttrue\n", [[
      local ticks, finished = 0, false
      host_tick(function() ticks = ticks + 1 return not finished end)
      local server = ip.udp.bind("127.0.0.1", 0)
      local port = server.local_port
      fiber.spawn(function()
        for _ = 1, 100 do
          local text, address, from = server:receive_string()
          server:send_to(text:upper(), address, from)
        end
        server:close()
      end)
      fiber.spawn(function()
        local client <close> = ip.udp.connect("127.0.0.1", port)
        for i = 1, 100 do
          client:send("ping " .. i)
          assert(client:receive_string() == "PING " .. i)
          if i % 20 == 0 then fiber.sleep(0.002) end
        end
        while ticks == 0 do fiber.sleep(0.001) end
        finished = true
        print("done", ticks > 0)
      end)
    ]])
  end)

  it_host("sends what a callback of the host has left to coalesce before it blocks", function()
    host_prints("before the loop\nfrom a fiber\nfrom a callback\n", [[
      local receiver = ip.udp.bind("127.0.0.1", 0)
      local sender = ip.udp.connect("127.0.0.1", receiver.local_port, { coalesce = true })
      sender:send("before the loop")
      fiber.spawn(function()
        for _ = 1, 3 do print((receiver:receive_string())) end
        receiver:close()
      end)
      fiber.spawn(function() sender:send("from a fiber") end)
      local ticks = 0
      host_tick(function()
        ticks = ticks + 1
        if ticks == 5 then sender:send("from a callback") end
        return ticks < 5
      end)
    ]])
  end)

  it_host("ends when nothing is left to wait for, and not before", function()
    host_prints("slept\nyielded\n", [[
      local sleeper = fiber.spawn(function() fiber.sleep(0.02) return "slept" end)
      fiber.spawn(function() print(sleeper:join()) fiber.yield() fiber.yield() print("yielded") end)
    ]])
  end)

  it_host("serves fibers that the host's callbacks start, and their deadlines", function()
    host_prints("false\twith_timeout: connection timed out (ETIMEDOUT)\n", [[
      local sock = ip.udp.bind("127.0.0.1", 0)
      host_tick(function()
        fiber.spawn(function()
          print(pcall(fiber.with_timeout, 0.005, sock.receive, sock, ip.byte_span.new(9)))
          sock:close()
        end)
      end)
    ]])
  end)

  it_host("reports errors of fibers, and refuses to suspend the handler", function()
    local output, code = run_host [[
      fiber.on_error(function(err) print(err, pcall(fiber.sleep, 1)) end)
      fiber.spawn(error, "boom")
    ]]
    assert.matches("^boom\tfalse\t.*cannot wait in sleep", output)
    assert.equal(0, code)
  end)

  it_host("may end by os.exit in a fiber with everything pending", function()
    for _, close in ipairs { "true", "false" } do
      local output, code = run_host(([[
        local sock = ip.udp.bind("127.0.0.1", 0)
        fiber.spawn(sock.receive_string, sock)
        fiber.spawn(fiber.sleep, 1000)
        fiber.spawn(fiber.wait_fd, sock.native_handle, "r")
        fiber.spawn(fiber.wait_signal, "SIGUSR1")
        fiber.spawn(function() fiber.sleep(0.01) os.exit(7, %s) end)
      ]]):format(close))
      assert.equal("", output)
      assert.equal(7, code)
    end
  end)

  it_host("is given back clean when the state ends with everything pending", function()
    local output, code = run_host [[
      local sock = ip.udp.bind("127.0.0.1", 0)
      fiber.spawn(sock.receive_string, sock)
      fiber.spawn(fiber.sleep, 1000)
      fiber.spawn(fiber.wait_fd, sock.native_handle, "r")
      fiber.spawn(fiber.wait_signal, "SIGUSR1")
      fiber.yield()
      error("the program ends here")
    ]]
    assert.matches("^program: .*the program ends here", output)
    assert.equal(1, code)
  end)

  it_host("is driven by the main thread where that waits", function()
    host_prints("a fiber\nmain\n", [[
      fiber.spawn(function() print("a fiber") end)
      fiber.sleep(0.005)
      print("main")
    ]])
  end)
end)
