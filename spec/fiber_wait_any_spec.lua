-- What ip.fiber.wait_any promises: the first ready source of several kinds, and that it takes nothing.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local memory = require "spec.support.memory"
local places = require "spec.support.places"
local platform = require "spec.support.platform"
local samples = require "spec.support.sample_fibers"
local support = require "spec.support"
local trace = require "spec.support.trace"

local fiber = ip.fiber
local wait_any = fiber.wait_any
local with_loop, on_main, in_three_places = support.with_loop, support.on_main, places.in_three_places
local error_of, waiting, wait_until = support.error_of, support.waiting, support.wait_until
local bound, send = support.bound, support.send
local assert_prints, assert_raises = assertions.assert_prints, assertions.assert_raises
local assert_again = assertions.assert_again

-- A fiber that waits in wait_any(...); its join gives the results.
local function waiting_for(...)
  return waiting(wait_any, ...)
end

describe("wait_any", function()
  in_three_places("returns the source that becomes ready, and takes nothing of it", function()
    local sock <close>, port = bound()
    local queue = fiber.queue()
    local ends = fiber.spawn(fiber.sleep, 0.004)
    fiber.spawn(function() send(sock, port, "hello") end)
    assert.equal(sock, wait_any(queue, sock, ends))
    assert.equal("hello", (sock:receive_string()))
    fiber.spawn(function() queue:put("value") end)
    assert.equal(queue, wait_any(queue, sock, ends))
    assert.equal("value", queue:try_get())
    assert.equal(ends, wait_any(queue, sock, ends))
    ends:join()
  end)

  it("returns the index, too, if the sources are in a list", with_loop(function()
    local a <close> = bound()
    local b <close> = bound()
    local port = b.local_port
    local list = { a, b }
    local one = waiting_for(list)
    send(a, port, "x")
    assert.same({ n = 2, b, 2 }, table.pack(one:join()))
    assert.same({ n = 2, b, 2 }, table.pack(wait_any(list)))
    assert.same({ n = 1, b }, table.pack(wait_any(a, b)))
  end))

  it("returns the first in order of several that are ready, before and after it has waited", with_loop(function()
    local a <close> = bound()
    local b <close> = bound()
    local queue = fiber.queue()
    local one = waiting_for(queue, a, b)
    send(b, b.local_port, "b")
    send(a, a.local_port, "a")
    assert.equal(a, one:join())
    assert.equal(a, wait_any(queue, a, b))
    assert.equal(b, wait_any(b, queue, a))
    queue:put(1)
    assert.equal(queue, wait_any(queue, a, b))
    assert.equal(a, wait_any(a, b, queue))
  end))

  it("accepts a source twice, and more sources than one poll takes", with_loop(function()
    local list, socks = {}, {}
    for i = 1, 150 do
      socks[i] = bound()
      list[#list + 1] = socks[i]
      list[#list + 1] = socks[i]
    end
    local one = waiting_for(list)
    send(socks[1], socks[140].local_port, "x")
    assert.same({ socks[140], 279 }, { one:join() })
    assert.same({ socks[140], 279 }, { wait_any(list) })
    for _, sock in ipairs(socks) do sock:close() end
  end))

  it("refuses other values, and an empty list", with_loop(function()
    local queue = fiber.queue()
    local wrong = { true, "x", {}, fiber.condition(), fiber.semaphore(1), fiber.group(), ip.address.new(), 1.5, -1 }
    for _, value in ipairs(wrong) do
      assertions.assert_bad_argument(2, nil, wait_any, queue, value)
      assertions.assert_bad_argument(nil, nil, wait_any, { queue, value })
    end
    assertions.assert_bad_argument(1, "ip.file_descriptor or integer expected, got no value", wait_any)
    assertions.assert_bad_argument(1, "empty", wait_any, {})
    assertions.assert_bad_argument(1, "source 2: socket", wait_any, { queue, "x" })
  end))

  it("wakes all who watch a source", with_loop(function()
    local sock <close>, port = bound()
    local queue = fiber.queue()
    local list = { waiting_for(sock), waiting_for(queue, sock), waiting_for(sock, queue) }
    send(sock, port, "x")
    for _, one in ipairs(list) do assert.equal(sock, one:join()) end
    assert.equal("x", (sock:receive_string()))
    list = { waiting_for(queue), waiting_for(sock, queue) }
    queue:put(1)
    for _, one in ipairs(list) do assert.equal(queue, one:join()) end
  end))

  it("yields after many calls that did not wait", with_loop(function()
    local queue = fiber.queue()
    queue:put(1)
    assert.is_true(support.turns_during(function()
      for _ = 1, 1000 do assert.equal(queue, wait_any(queue)) end
    end) >= 5)
  end))
end)

describe("a wait_any that is ended", function()
  it("by a deadline, an interruption or coroutine.close leaves its sources alone", with_loop(function()
    local sock <close>, port = bound()
    local queue, sleeper = fiber.queue(), samples.sleeper()
    assert.equal(ip.error.ETIMEDOUT, error_of(fiber.with_timeout, 0.001, wait_any, sock, queue, sleeper))
    assert.equal(ip.error.ETIMEDOUT, error_of(fiber.with_timeout, 0, wait_any, sock, queue, sleeper))
    local one = waiting_for(queue, sock, sleeper)
    samples.stop(one)
    local co = coroutine.create(wait_any)
    coroutine.resume(co, queue, sock, sleeper)
    coroutine.close(co)
    queue:put(1)
    send(sock, port, "x")
    assert.equal(1, queue:get())
    assert.equal("x", (sock:receive_string()))
    samples.stop(sleeper)
  end))

  it("sees at its deadline what came in time", with_loop(function()
    local sock <close>, port = bound()
    local ok, found = pcall(fiber.with_timeout, 0.001, function()
      local other = fiber.spawn(function()
        send(sock, port, "x")
        local until_late = fiber.now() + 0.005
        while fiber.now() < until_late do end -- luacheck: ignore
      end)
      local found = wait_any(sock)
      other:join()
      return found
    end)
    assert.is_true(ok or found == ip.error.ETIMEDOUT)
    assert.equal("x", (sock:receive_string()))
  end))

  it("by somebody who resumes it raises an error", with_loop(function()
    local queue = fiber.queue()
    local co = coroutine.create(wait_any)
    coroutine.resume(co, queue)
    local ok, problem = coroutine.resume(co)
    assert.is_false(ok)
    assertions.assert_contains(problem, "resumed while waiting in wait_any")
    queue:put(1)
  end))

  it("raises EDEADLK on the main thread where nothing can make a source ready", function()
    assert_prints("false\tEDEADLK\twait_any\n", [[
      local fiber = require "ip".fiber
      local ok, err = pcall(fiber.wait_any, fiber.queue(), fiber.spawn(function() fiber.condition():wait() end))
      print(ok, err.name, err.operation)
    ]])
  end)

  it("refuses to wait where Lua cannot yield", with_loop(function()
    local queue = fiber.queue()
    assertions.assert_message("cannot wait in wait_any", table.sort, { 2, 1 }, function() wait_any(queue) end)
  end))
end)

describe("a socket as a source of wait_any", function()
  it("is ready when it is closed, before and during the wait", with_loop(function()
    local sock = bound()
    local one = waiting_for(sock)
    sock:close()
    assert.equal(sock, one:join())
    assert.equal(sock, wait_any(sock))
    assert.equal(sock, wait_any(ip.udp.socket.new(), sock) and sock)
  end))

  it("is ready when it has been shut down, and when an error is to be reported", with_loop(function()
    local a, b = support.pair()
    local one = waiting_for(a)
    a:shutdown("receive")
    assert.equal(a, one:join())
    assert.equal(a, wait_any(a))
    a:close()
    b:close()
    local client <close> = ip.udp.connect("127.0.0.1", support.dead_port())
    one = waiting_for(client)
    client:send("x")
    assert.equal(client, one:join())
    assert_raises("ECONNREFUSED", "try_receive", client.try_receive, client, ip.byte_span.new(1))
  end))

  it("is ready for an empty datagram", with_loop(function()
    local sock <close>, port = bound()
    local one = waiting_for(sock)
    send(sock, port, "")
    assert.equal(sock, one:join())
    assert.equal("", (sock:receive_string()))
  end))

  it("is not ready because of datagrams from others than its peer", with_loop(function()
    local sock <close>, port = bound()
    local stranger <close> = bound()
    local peer <close> = bound()
    send(stranger, port, "not from the peer")
    sock:connect("127.0.0.1", peer.local_port)
    assert.equal(ip.error.ETIMEDOUT, error_of(fiber.with_timeout, 0.002, wait_any, sock))
    local one = waiting_for(sock)
    send(peer, port, "from the peer")
    assert.equal(sock, one:join())
    assert.equal("from the peer", (sock:receive_string()))
  end))

  it("is ready for datagrams that were read ahead, also during the wait", with_loop(function()
    local sock <close> = ip.udp.bind("127.0.0.1", 0, { coalesce = true })
    local client <close> = ip.udp.connect("127.0.0.1", sock.local_port)
    for i = 1, 5 do client:send("datagram " .. i) end
    assert.equal("datagram 1", (sock:receive_string()))
    for i = 2, 5 do
      assert.equal(sock, wait_any(sock))
      assert.equal("datagram " .. i, (sock:receive_string()))
    end
    local one = waiting_for(sock)
    for i = 1, 3 do client:send("datagram " .. i) end
    assert.equal("datagram 1", (sock:receive_string())) -- which reads the others, too
    assert.equal(sock, one:join())
    assert.equal("datagram 2", (sock:receive_string()))
    assert.equal("datagram 3", (sock:receive_string()))
  end))

  it("lets waiting receives go first, and is ready for what they leave", with_loop(function()
    local sock <close>, port = bound()
    local receiver = support.suspended(sock, "receive_string")
    local one = waiting_for(sock)
    send(sock, port, "first")
    local _, text = receiver:join()
    assert.equal("first", text)
    assert.equal("waiting", one.status)
    receiver = support.suspended(sock, "receive_string")
    send(sock, port, "second")
    send(sock, port, "third")
    _, text = receiver:join()
    assert.equal("second", text)
    assert.equal(sock, one:join())
    assert.equal("third", (sock:receive_string()))
  end))

  it("may be taken by a faster fiber: the slower one's try_ call says EAGAIN", with_loop(function()
    local sock <close>, port = bound()
    local results = {}
    local function take()
      local found = wait_any(sock)
      results[#results + 1] = found:try_receive(ip.byte_span.new(9)) or "EAGAIN"
    end
    local a, b = waiting(take), waiting(take)
    send(sock, port, "x")
    a:join()
    b:join()
    assert.same({ 1, "EAGAIN" }, results)
  end))

  platform.it_where(platform.can_trace(), "strace")("costs no system call to watch again: it stays armed", function()
    local program = [[
      local ip = require "ip"
      ip.fiber.run(function()
        local socks, queue = {}, ip.fiber.queue()
        for i = 1, 20 do socks[i] = ip.udp.bind("127.0.0.1", 0) end
        socks[21] = queue
        ip.fiber.spawn(function()
          for i = 1, ROUNDS do
            queue:put(i)
            ip.fiber.yield()
          end
          queue:close()
        end)
        while ip.fiber.wait_any(socks) == queue and queue:try_get() do end
      end)
    ]]
    local few = trace.count((program:gsub("ROUNDS", 10)))
    local many = trace.count((program:gsub("ROUNDS", 110)))
    assert.is_true(many.epoll_ctl - few.epoll_ctl <= 10, many.epoll_ctl - few.epoll_ctl)
    assert.is_true(many.poll - few.poll <= 220, many.poll - few.poll)
  end)
end)

describe("a queue as a source of wait_any", function()
  it("is ready when it is closed", with_loop(function()
    local queue = fiber.queue()
    local one = waiting_for(queue)
    queue:close()
    assert.equal(queue, one:join())
    assert.equal(queue, wait_any(queue))
  end))

  it("is not ready for a value that belongs to a get that waits", with_loop(function()
    local queue = fiber.queue()
    local getter = waiting(queue.get, queue)
    local one = waiting_for(queue)
    queue:put(1)
    assert.equal(1, getter:join())
    assert.equal("waiting", one.status)
    queue:put(2)
    assert.equal(queue, one:join())
    assert.equal(2, queue:try_get())
  end))

  it("may be collected while a closed coroutine was the last to know it", with_loop(function()
    local co
    local one = waiting(function()
      co = coroutine.running()
      local closing <close> = samples.on_close(samples.collect_elsewhere) -- luacheck: ignore closing
      wait_any(fiber.queue(), fiber.queue(3))
    end)
    coroutine.close(co)
    assert.equal(ip.error.ECANCELED, error_of(one.join, one))
    collectgarbage()
  end))
end)

describe("a fiber as a source of wait_any", function()
  it("is ready however it has ended, and can be joined afterwards", with_loop(function()
    local done, stopped = fiber.spawn(function() return "result" end), samples.sleeper()
    assert.equal(done, wait_any(stopped, done))
    assert.equal("result", done:join())
    samples.collect_errors()
    local failed = fiber.spawn(error, "failure", 0)
    assert.equal(failed, wait_any(stopped, failed))
    assert.equal("failure", error_of(failed.join, failed))
    samples.restore_on_error()
    local one = waiting_for(stopped)
    stopped:interrupt()
    assert.equal(stopped, one:join())
    stopped:join()
  end))

  it("that waits for itself raises EDEADLK", with_loop(function()
    assert_raises("EDEADLK", "wait_any", wait_any, fiber.queue(), fiber.current())
    local inside = fiber.coroutine.wrap(function(me) return error_of(wait_any, me) end)
    assert.equal(ip.error.EDEADLK, inside(fiber.current()))
  end))
end)

describe("a descriptor as a source of wait_any", function()
  it("is ready when it is readable: an integer or an ip.file_descriptor", with_loop(function()
    local sock <close>, port = bound()
    local fd <close> = sock:release():dup() -- the first one is closed when it is collected
    collectgarbage()
    local sender <close> = bound()
    local number = tonumber(tostring(fd):match("%d+"))
    local queue = fiber.queue()
    local list = { waiting_for(queue, fd), waiting_for(queue, number, number) }
    send(sender, port, "x")
    assert.equal(fd, list[1]:join())
    assert.equal(number, list[2]:join())
    assert.equal(fd, wait_any(queue, fd))
    assert.equal(number, wait_any(queue, number))
    sock:assign("v4", fd)
    assert.equal("x", (sock:receive_string()))
    assert.equal(ip.error.ETIMEDOUT, error_of(fiber.with_timeout, 0.001, wait_any, queue, number, sock))
  end))

  it("raises EBADF when it is closed, also during the wait", with_loop(function()
    local sock = bound()
    local fd = sock:release()
    local number = tonumber(tostring(fd):match("%d+"))
    local queue = fiber.queue()
    local list = { waiting(pcall, wait_any, queue, fd), waiting(pcall, wait_any, queue, number) }
    fd:close()
    for _, one in ipairs(list) do
      local ok, err = one:join()
      assert.is_false(ok)
      assert.equal(ip.error.EBADF, err)
      assert.equal("wait_any", err.operation)
    end
    assert_raises("EBADF", "wait_any", wait_any, queue, fd)
    assert_raises("EBADF", "wait_any", wait_any, queue, number)
  end))

  it("that cannot be watched is ready: a regular file", with_loop(function()
    local sock = bound()
    local number = sock.native_handle
    sock:close()
    local file <close> = assert(io.open("/dev/null")) -- it gets the number, which is the lowest that is free
    assert.equal(number, wait_any(fiber.queue(), number))
    assert.is_not_nil(file)
  end))
end)

describe("wait_any's memory", function()
  it("needs no garbage in the steady state", with_loop(function()
    local sock <close>, port = bound()
    local queue = fiber.queue()
    local list = { queue, sock }
    local buffer = ip.byte_span.new(10)
    local bytes = memory.garbage_of(function()
      sock:send_to("x", "127.0.0.1", port)
      wait_any(list)
      wait_any(queue, sock)
      sock:try_receive(buffer)
      fiber.sleep(0)
    end, 100, 10)
    assert.is_true(bytes <= 64 + 100 * 60, "garbage: " .. bytes) -- send_to makes an address of its text
  end))

  it("survives sources that come and go at random", on_main(function()
    local queue = fiber.queue()
    local sock <close> = bound()
    local fibers = {}
    for i = 1, 50 do
      fibers[i] = fiber.spawn(function()
        for round = 1, 20 do
          local own <close> = bound()
          pcall(fiber.with_timeout, (i * round % 7) / 5000, wait_any, queue, own, sock, own)
          if i % 5 == 0 then queue:try_put(round) else queue:try_get() end
        end
      end)
    end
    for _, one in ipairs(fibers) do one:join() end
    wait_until(function() return true end)
    assert_again("try_receive", sock:try_receive(ip.byte_span.new(1)))
  end))
end)
