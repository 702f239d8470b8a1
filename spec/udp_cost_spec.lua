-- What transfers cost, in counts: bytes of garbage and system calls.
local ip = require "ip"
local memory = require "spec.support.memory"
local platform = require "spec.support.platform"
local process = require "spec.support.process"
local support = require "spec.support"
local trace = require "spec.support.trace"

local byte_span, fiber = ip.byte_span, ip.fiber
local bound, pair = support.bound, support.pair
local with_loop, on_main = support.with_loop, support.on_main
local it_v6 = platform.it_v6

describe("the steady state makes no garbage", function()
  local function bytes_of(fn) return memory.garbage_of(fn, 1000, 300) end

  it("in receive_from and send_to, an echo", with_loop(function()
    local server <close>, port = bound()
    local client <close>, client_port = bound()
    local address = ip.address.loopback_v4()
    local buf, reply = byte_span.new(64), byte_span.new(64)
    assert.equal(0, bytes_of(function()
      client:send_to("ping", address, port)
      local n, peer, from = server:receive_from(buf)
      server:send_to(buf:resize(n), peer, from)
      buf:resize(64)
      client:receive_from(reply)
    end))
    assert.is_true(client_port > 0)
  end))

  it("but one address per receive_from, where senders take turns", with_loop(function()
    local server <close>, port = bound()
    local address, bytes = ip.address.loopback_v4(), "\127\0\0\1"
    local one <close> = ip.udp.bind("127.0.0.1", 0)
    local two <close> = ip.udp.bind("127.0.0.2", 0)
    local buf = byte_span.new(64)
    local size_of_two = bytes_of(function()
      ip.address.from_bytes(bytes)
      ip.address.from_bytes(bytes)
    end)
    assert.is_true(size_of_two > 0)
    local made = bytes_of(function()
      one:send_to("x", address, port)
      two:send_to("x", address, port)
      local _, first = server:receive_from(buf)
      local _, second = server:receive_from(buf)
      assert(first ~= second)
    end)
    -- in 1000 rounds: what comes once, such as a table that grows, is less than a byte for each
    assert.equal(size_of_two // 1000, made // 1000)
  end))

  it_v6("in receive_from and send_to over v6", with_loop(function()
    local server <close>, port = bound("v6")
    local client <close> = bound("v6")
    local address = ip.address.loopback_v6()
    local buf = byte_span.new(64)
    assert.equal(0, bytes_of(function()
      client:send_to("ping", address, port)
      local _, peer, from = server:receive_from(buf)
      server:send_to("pong", peer, from)
      client:receive_from(buf)
    end))
  end))

  it("in receive and send", with_loop(function()
    local a, b = pair()
    local buf = byte_span.new(64)
    assert.equal(0, bytes_of(function()
      a:send("x")
      b:receive(buf)
      b:send(buf)
      a:receive(buf)
    end))
  end))

  it("in the try_ forms", with_loop(function()
    local a, b = pair()
    local address, port = b.local_address, b.local_port
    local buf = byte_span.new(64)
    assert.equal(0, bytes_of(function()
      a:try_send("x")
      b:try_receive(buf)
      a:try_send_to("x", address, port)
      b:try_receive_from(buf)
    end))
  end))

  it("in a gathering send", with_loop(function()
    local a, b = pair()
    local buf = byte_span.new(64)
    local parts = { "head ", byte_span.append("body"), " tail" }
    assert.equal(0, bytes_of(function()
      a:send(parts)
      b:receive(buf)
    end))
  end))

  it("in calls that suspend", with_loop(function()
    local a, b = pair()
    local echo = fiber.spawn(function()
      local buf = byte_span.new(64)
      while b:receive(buf) do b:send(buf) end
    end)
    local buf = byte_span.new(64)
    assert.equal(0, bytes_of(function()
      a:send("x")
      a:receive(buf)
    end))
    echo:interrupt()
    echo:join()
  end))

  it("in calls that suspend with a deadline", with_loop(function()
    local a, b = pair()
    a.receive_timeout, b.receive_timeout, a.send_timeout = 5, 5, 5
    local echo = fiber.spawn(function()
      local buf = byte_span.new(64)
      while b:receive_from(buf) do b:send(buf) end
    end)
    local buf = byte_span.new(64)
    assert.equal(0, bytes_of(function()
      a:send("x")
      a:receive_from(buf)
    end))
    echo:interrupt()
    echo:join()
  end))

  it("on the main thread", on_main(function()
    local a, b = pair()
    local buf = byte_span.new(64)
    assert.equal(0, bytes_of(function()
      a:send("x")
      b:receive(buf)
    end))
  end))
end)

-- Programs in processes of their own ----------------------------------------------------------------------------

describe("system calls", function()
  local it_counted = platform.it_where(platform.can_trace(), "strace")

  -- A server of arg[1] echoes. With "queued" as arg[2] it begins when a datagram comes on another socket: by then all
  -- others are in its queue, and it never has to wait.
  local server = [[
    local ip = require "ip"
    local sock, starter = ip.udp.bind("127.0.0.1", 0), ip.udp.bind("127.0.0.1", 0)
    ip.fiber.spawn(function() -- nobody waits for ever for a server that lost its client
      ip.fiber.sleep(60)
      os.exit(1)
    end):detach()
    print(sock.local_port, starter.local_port, io.open("/proc/self/stat"):read("n"))
    io.stdout:flush()
    local echoes = tonumber(arg[1])
    ip.fiber.run(function()
      if arg[2] == "queued" then starter:receive_string() end
      local buf = ip.byte_span.new(64)
      for _ = 1, echoes do
        local n, address, port = sock:receive_from(buf)
        sock:send_to(buf:resize(n), address, port)
        buf:resize(64)
      end
    end)
  ]]

  local clients = {
    -- Sends all, and then lets the server begin, which waits for that.
    queued = function(client, echoes, starter, pid)
      for _ = 1, echoes do client:send("x") end
      support.wait_until(function() return process.is_asleep(pid) end)
      local other <close> = ip.udp.connect("127.0.0.1", starter)
      other:send("begin")
      for _ = 1, echoes do client:receive_string() end
    end,
    -- Sends each datagram when the server waits for it.
    waiting = function(client, echoes, _, pid)
      for _ = 1, echoes do
        support.wait_until(function() return process.is_asleep(pid) end)
        client:send("x")
        client:receive_string()
      end
    end,
  }

  -- Runs the server for a number of echoes; gives its system calls by name, and their total.
  local function count_calls(echoes, way)
    local path, counts = support.write_file(server), os.tmpname()
    local pipe = assert(io.popen(trace.command("strace -f -c -o " .. counts, path, ("%d %s"):format(echoes, way))))
    local port, starter, pid = pipe:read("n", "n", "n")
    local client <close> = ip.udp.connect("127.0.0.1", port, { receive_timeout = 20 })
    clients[way](client, echoes, starter, pid)
    pipe:close()
    os.remove(path)
    return trace.read_counts(counts)
  end

  -- What an echo costs, without the start and the end of the process; and how often a descriptor was armed. The
  -- datagrams of the longer run fit the queue of a socket.
  local function cost(way)
    local few, many = 50, 250
    local less, more = count_calls(few, way), count_calls(many, way)
    return (more.total - less.total) / (many - few), more.epoll_ctl - less.epoll_ctl
  end

  it_counted("are at most 3.1 per echo with one datagram in flight, and none arms per datagram", on_main(function()
    local per_echo, arming = cost("waiting")
    assert.is_true(per_echo <= 3.1, "system calls per echo: " .. per_echo)
    assert.is_true(per_echo > 2.5, "the server did not wait for each datagram: " .. per_echo)
    assert.is_true(arming < 20, "calls of epoll_ctl for 200 echoes: " .. arming)
  end, 60))

  it_counted("are at most 2.05 per echo when saturated, and none arms per datagram", on_main(function()
    local per_echo, arming = cost("queued")
    assert.is_true(per_echo <= 2.05, "system calls per echo: " .. per_echo)
    assert.is_true(per_echo >= 2, "not all system calls were counted: " .. per_echo)
    assert.is_true(arming < 20, "calls of epoll_ctl for 200 echoes: " .. arming)
  end, 60))
end)
