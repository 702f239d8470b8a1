-- What is promised about suspended calls: the three places to wait in, and coroutines that others resume or close.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local support = require "spec.support"

local fiber, byte_span = ip.fiber, ip.byte_span
local with_loop, on_main = support.with_loop, support.on_main
local error_of, wait_until, bound = support.error_of, support.wait_until, support.bound
local send = support.send
local assert_contains = assertions.assert_contains

-- Every suspending call, as a function that would wait; `sock` has nothing to read.
local function waiting_calls(sock, some_fiber)
  local buffer = byte_span.new(16)
  return {
    receive = function() return sock:receive(buffer) end,
    receive_from = function() return sock:receive_from(buffer) end,
    receive_string = function() return sock:receive_string() end,
    sleep = function() return fiber.sleep(0.001) end,
    yield = function() return fiber.yield() end,
    join = function() return some_fiber:join() end,
  }
end

describe("a suspending call", function()
  it("suspends a coroutine that nobody but the library resumes", on_main(function()
    local sock, port = bound()
    local got
    local one = coroutine.create(function() got = table.pack(sock:receive_string()) end)
    assert.is_true(coroutine.resume(one))
    assert.equal("suspended", coroutine.status(one))
    send(sock, port, "hello")
    assert.is_nil(got)
    fiber.run()
    assert.equal("hello", got[1])
    assert.equal("dead", coroutine.status(one))
    sock:close()
  end))

  it("yields no values to whoever resumed the coroutine", on_main(function()
    local sock, port = bound()
    local wrapped = coroutine.wrap(function() sock:receive_string() end)
    assert.equal(0, select("#", wrapped()))
    send(sock, port, "x")
    fiber.run()
    sock:close()
  end))

  it("on the main thread drives the loop: fibers go on meanwhile", on_main(function()
    local sock, port = bound()
    fiber.spawn(function()
      fiber.sleep(0.002)
      send(sock, port, "from a fiber")
    end)
    assert.equal("from a fiber", (sock:receive_string()))
    sock:close()
  end))

  it("in a coroutine inside a fiber suspends that coroutine, and the fiber goes on", with_loop(function()
    local sock, port = bound()
    local got
    local inner = coroutine.create(function() got = sock:receive_string() end)
    assert.is_true(coroutine.resume(inner))
    assert.equal("suspended", coroutine.status(inner))
    send(sock, port, "for the inner one")
    wait_until(function() return got end)
    assert.equal("for the inner one", got)
    sock:close()
  end))

  it("works in iterators, pcall, xpcall, metamethods called from Lua, and __close of a block", with_loop(function()
    local sock, port = bound()
    for i = 1, 4 do send(sock, port, tostring(i)) end
    local function receive() return (sock:receive_string()) end
    local lazy = setmetatable({}, {
      __index = function() return receive() end,
      __add = function() return receive() end,
      __close = function() send(sock, port, receive() .. " closed") end,
    })
    do
      local guard <close> = lazy -- luacheck: ignore guard
      assert.equal("1", lazy.x)
      assert.equal("2", lazy + 1)
      assert.same({ true, "3" }, { xpcall(receive, debug.traceback) })
    end
    assert.equal("4 closed", receive())
    local function await()
      fiber.sleep(0.001)
      return "waited"
    end
    assert.equal("waited", setmetatable({}, { __index = await }).x)
    local rounds = 0
    for value in await do
      assert.equal("waited", value)
      rounds = rounds + 1
      if rounds == 3 then break end
    end
    sock:close()
  end))
end)

describe("where Lua cannot suspend", function()
  local places = {
    ["a comparator of table.sort"] = function(call)
      table.sort({ 3, 1, 2 }, function(a, b)
        call()
        return a < b
      end)
    end,
    ["a callback of string.gsub"] = function(call)
      string.gsub("abc", "b", function() call() end)
    end,
    ["a metamethod called from C"] = function(call)
      return tostring(setmetatable({}, { __tostring = function()
        call()
        return "text"
      end }))
    end,
    ["a __index called from C"] = function(call)
      return table.concat(setmetatable({}, { __index = function()
        call()
        return "x"
      end, __len = function() return 1 end }))
    end,
    ["a reader of load"] = function(call)
      local done = false
      local chunk, message = load(function()
        if done then return nil end
        done = true
        call()
        return "return 1"
      end)
      if not chunk then error(message, 0) end
    end,
  }

  for place, go in pairs(places) do
    it("(" .. place .. ") every call raises in a fiber, and says why", with_loop(function()
      local sock = bound()
      local other = fiber.spawn(fiber.sleep, math.huge)
      fiber.yield()
      for name, call in pairs(waiting_calls(sock, other)) do
        local message = tostring(error_of(go, call))
        assert_contains(message, "cannot wait in " .. name)
        assert_contains(message, "Lua cannot suspend this coroutine here")
      end
      other:interrupt()
      other:join()
      sock:close()
    end))

    it("(" .. place .. ") raises also when it could complete at once, and consumes nothing", with_loop(function()
      local sock, port = bound()
      send(sock, port, "kept")
      local buffer = byte_span.new(16)
      assert_contains(tostring(error_of(go, function() sock:receive(buffer) end)), "cannot wait in receive")
      assert_contains(tostring(error_of(go, function() sock:receive_from(buffer) end)), "cannot wait in receive_from")
      assert_contains(tostring(error_of(go, function() sock:receive_string() end)), "cannot wait in receive_string")
      assert.equal(0, buffer[1])
      assert_contains(tostring(error_of(go, function() send(sock, port, "not sent") end)), "cannot wait in send_to")
      assert.equal("kept", (sock:receive_string()))
      assert.is_nil((sock:try_receive(buffer)))
      sock:close()
    end))

    it("(" .. place .. ") the try_ calls work", with_loop(function()
      local sock, port = bound()
      local buffer = byte_span.new(16)
      local sent, received
      go(function()
        if sent then return end
        sent = sock:try_send_to("x", "127.0.0.1", port)
        received = sock:try_receive(buffer)
      end)
      assert.equal(1, sent)
      assert.equal(1, received)
      sock:close()
    end))

    it("(" .. place .. ") the main thread waits, as it needs no suspension", on_main(function()
      local sock, port = bound()
      local received = {}
      fiber.spawn(function()
        for i = 1, 20 do
          fiber.sleep(0.0005)
          send(sock, port, tostring(i))
        end
      end)
      go(function() received[#received + 1] = sock:receive_string() end)
      assert.equal("1", received[1])
      fiber.run()
      sock:close()
    end))
  end

  it("(a finalizer) a call in a fiber is refused, and the program goes on", with_loop(function()
    local sock, port = bound()
    send(sock, port, "kept")
    local message
    setmetatable({}, { __gc = function() message = select(2, pcall(sock.receive_string, sock)) end })
    collectgarbage()
    collectgarbage()
    assert_contains(tostring(message), "cannot wait in receive_string")
    assert.equal("kept", (sock:receive_string()))
    sock:close()
  end))

  it("(a finalizer) a call on the main thread is refused, too", on_main(function()
    local sock, port = bound()
    send(sock, port, "kept")
    local knows, messages = nil, {}
    setmetatable({}, { __gc = function()
      knows = not collectgarbage("count") -- Lua before 5.4.4 does not tell that a finalizer runs
      if not knows then return end
      messages[1] = select(2, pcall(sock.receive_string, sock))
      messages[2] = select(2, pcall(fiber.sleep, 0.001))
      messages[3] = select(2, pcall(fiber.run))
    end })
    collectgarbage()
    assert.equal("kept", (sock:receive_string()))
    sock:close()
    if not knows then return end
    assert_contains(tostring(messages[1]), "cannot wait in receive_string")
    assert_contains(tostring(messages[2]), "cannot wait in sleep")
    assert_contains(tostring(messages[3]), "cannot wait in run")
  end))

  it("(a finalizer) an unprotected call makes a warning at most, and the program goes on", function()
    local output, code = support.run_program [[
      local ip = require "ip"
      local sock = ip.udp.bind("127.0.0.1", 0)
      print(ip.fiber.run(function()
        setmetatable({}, { __gc = function() sock:receive_string() end })
        collectgarbage()
        ip.fiber.sleep(0.001)
        return "went on"
      end))
    ]]
    assert_contains(output, "went on\n")
    assert.equal(0, code)
  end)

  it("(a second drive) a call of the main thread is refused while it drives the loop", function()
    -- the on_error handler runs on the main thread, for the driver
    local messages = {}
    on_main(function()
      fiber.on_error(function()
        messages[1] = select(2, pcall(fiber.sleep, 0.001))
        messages[2] = select(2, pcall(fiber.run))
      end)
      fiber.spawn(error, "failure")
      fiber.yield()
      fiber.on_error(nil)
    end)()
    assert_contains(messages[1], "cannot wait in sleep: the main thread is already driving the event loop")
    assert_contains(messages[2], "already driving the event loop")
  end)
end)

describe("a suspended coroutine that somebody else resumes", function()
  it("gets `resumed while waiting in <operation>`, from every call", on_main(function()
    local sock = bound()
    local other = fiber.spawn(fiber.sleep, math.huge)
    fiber.yield()
    for name, call in pairs(waiting_calls(sock, other)) do
      if name ~= "yield" then
        local one = coroutine.create(call)
        assert.is_true(coroutine.resume(one))
        local ok, message = coroutine.resume(one, "garbage", 1, 2)
        assert.is_false(ok)
        assert_contains(message, "resumed while waiting in " .. name)
      end
    end
    assert.equal("waiting", other.status)
    other:interrupt()
    other:join()
    sock:close()
  end))

  it("consumes nothing: the next waiter gets the datagram", on_main(function()
    local sock, port = bound()
    local one = coroutine.create(function() return pcall(sock.receive_string, sock) end)
    coroutine.resume(one)
    local waiter = fiber.spawn(function() return (sock:receive_string()) end)
    fiber.yield()
    local _, ok, message = coroutine.resume(one, "garbage")
    assert.is_false(ok)
    assert_contains(message, "resumed while waiting in receive_string")
    send(sock, port, "for the waiter")
    assert.equal("for the waiter", waiter:join())
    sock:close()
  end))

  it("may wait again after the mistake", on_main(function()
    local sock, port = bound()
    local got
    local one = coroutine.create(function()
      pcall(sock.receive_string, sock)
      got = sock:receive_string()
    end)
    coroutine.resume(one)
    coroutine.resume(one)
    assert.is_nil(got)
    send(sock, port, "second try")
    fiber.run()
    assert.equal("second try", got)
    sock:close()
  end))

  it("raises the error in the fiber, when it is a fiber's, and the fiber stays a fiber", with_loop(function()
    local sock, port = bound()
    local co
    local one = fiber.spawn(function()
      co = coroutine.running()
      local ok, message = pcall(sock.receive_string, sock)
      assert(not ok)
      return message, (sock:receive_string())
    end)
    fiber.yield()
    assert.is_true(coroutine.resume(co, "garbage"))
    fiber.yield()
    send(sock, port, "after the mistake")
    local message, text = one:join()
    assert_contains(message, "resumed while waiting in receive_string")
    assert.equal("after the mistake", text)
    sock:close()
  end))

  it("ends the join of a fiber that a stranger has run to its end", with_loop(function()
    local co
    local one = fiber.spawn(function()
      co = coroutine.running()
      pcall(fiber.sleep, 100)
      return "for the stranger"
    end)
    fiber.yield()
    local _, result = coroutine.resume(co)
    assert.equal("for the stranger", result)
    local err = error_of(one.join, one)
    assert.equal(ip.error.ECANCELED, err)
    assert.equal("join", err.operation)
    assert.equal("failed", one.status)
  end))

  it("leaves no timer behind", on_main(function()
    local sock = bound()
    sock.receive_timeout = 0.002
    local one = coroutine.create(function() pcall(sock.receive_string, sock) end)
    coroutine.resume(one)
    coroutine.resume(one)
    fiber.sleep(0.01)
    sock:close()
  end))
end)

describe("a suspended coroutine that somebody closes", function()
  it("is withdrawn: the next waiter gets the datagram", on_main(function()
    local sock, port = bound()
    local one = coroutine.create(function() sock:receive_string() end)
    coroutine.resume(one)
    local waiter = fiber.spawn(function() return (sock:receive_string()) end)
    fiber.yield()
    assert.is_true(coroutine.close(one))
    send(sock, port, "for the waiter")
    assert.equal("for the waiter", waiter:join())
    sock:close()
  end))

  it("is withdrawn from sleep, join and yield too", on_main(function()
    local sock = bound()
    local other = fiber.spawn(fiber.sleep, math.huge)
    fiber.yield()
    for _, call in pairs(waiting_calls(sock, other)) do
      local one = coroutine.create(call)
      coroutine.resume(one)
      assert.is_true(coroutine.close(one))
    end
    fiber.sleep(0.005)
    assert.is_true(other.joinable)
    other:interrupt()
    other:join()
    sock:close()
  end))

  it("runs its own __close variables, from inside the call", on_main(function()
    local closed = false
    local one = coroutine.create(function()
      local guard <close> = setmetatable({}, { __close = function() closed = true end }) -- luacheck: ignore guard
      fiber.sleep(100)
    end)
    coroutine.resume(one)
    coroutine.close(one)
    assert.is_true(closed)
  end))

  it("and was a fiber, makes join raise instead of hang", with_loop(function()
    local co
    local one = fiber.spawn(function()
      co = coroutine.running()
      fiber.sleep(100)
    end)
    local joiner = fiber.spawn(function() return error_of(one.join, one) end)
    fiber.yield()
    assert.is_true(coroutine.close(co))
    assert.equal(ip.error.ECANCELED, joiner:join())
    assert.equal("failed", one.status)
  end))

  it("and was a fiber, does not hang run either", on_main(function()
    local co
    fiber.spawn(function()
      co = coroutine.running()
      fiber.sleep(100)
    end)
    fiber.spawn(function() coroutine.close(co) end)
    fiber.run()
  end))

  it("may be closed by the very fiber that its datagram comes with", with_loop(function()
    local sock, port = bound()
    local second_ran = false
    local second
    local first = fiber.spawn(function()
      sock:receive_string()
      coroutine.close(second)
    end)
    fiber.yield()
    second = coroutine.create(function()
      sock:receive_string()
      second_ran = true
    end)
    coroutine.resume(second)
    send(sock, port, "1")
    send(sock, port, "2")
    first:join()
    assert.equal("2", (sock:receive_string()))
    assert.is_false(second_ran)
    sock:close()
  end))
end)

describe("another scheduler", function()
  it("may run coroutines that wait in two sockets by turns, if it resumes only those it has to", on_main(function()
    local a, a_port = bound()
    local b, b_port = bound()
    -- A scheduler that knows one thing: coroutines that asked it for a turn.
    local runnable = {}
    local function turn()
      runnable[#runnable + 1] = coroutine.running()
      coroutine.yield("a turn, please")
    end
    local got = {}
    local worker = coroutine.create(function()
      for i = 1, 20 do
        got[#got + 1] = (i % 2 == 1 and a or b):receive_string()
        turn()
      end
      got.done = true
    end)
    coroutine.resume(worker)
    for i = 1, 20 do
      if i % 2 == 1 then send(a, a_port, "a" .. i) else send(b, b_port, "b" .. i) end
    end
    while not got.done do
      fiber.yield()
      local ready = runnable
      runnable = {}
      for _, co in ipairs(ready) do assert.is_true(coroutine.resume(co)) end
    end
    for i = 1, 20 do assert.equal((i % 2 == 1 and "a" or "b") .. i, got[i]) end
    a:close()
    b:close()
  end))

  it("gets its coroutine back once: later plain yields are not resumed by the library", on_main(function()
    local rounds = 0
    local one = coroutine.create(function()
      fiber.sleep(0.001)
      while true do
        rounds = rounds + 1
        coroutine.yield(rounds)
      end
    end)
    coroutine.resume(one)
    for _ = 1, 5 do fiber.sleep(0.001) end
    assert.equal(1, rounds)
    assert.same({ true, 2 }, { coroutine.resume(one) })
  end))
end)
