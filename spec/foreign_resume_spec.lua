-- Coroutines that others resume, close or end while they are inside a call of the library.

local ip = require "ip"
local process = require "spec.support.process"
local support = require "spec.support"

local fiber = ip.fiber

-- A fiber whose body gets its own coroutine by `get()`.
local function spawn_known(body)
  local co
  local started = fiber.spawn(function()
    co = coroutine.running()
    return body()
  end)
  return started, function() return co end
end

describe("a fiber that somebody else resumes", function()
  it("may step the loop, which leaves its coroutine alone", support.on_main(function()
    local started, get = spawn_known(function()
      coroutine.yield() -- the dispatcher goes on with it in the next iteration
      fiber.loop:step()
      return fiber.current() ~= nil
    end)
    fiber.loop:step()
    assert.same({ true, true }, { coroutine.resume(get()) })
    assert.equal(ip.error.ECANCELED, support.error_of(started.join, started))
  end))

  it("ends for whoever joins it, when it returns there", support.on_main(function()
    local started, get = spawn_known(function()
      fiber.yield()
      return 42
    end)
    fiber.loop:step()
    assert.same({ true, 42 }, { coroutine.resume(get()) })
    assert.equal(ip.error.ECANCELED, support.error_of(started.join, started))
  end))

  it("ends for whoever joins it, when it fails there", support.on_main(function()
    local started, get = spawn_known(function()
      fiber.yield()
      error("broken", 0)
    end)
    fiber.loop:step()
    assert.same({ false, "broken" }, { coroutine.resume(get()) })
    assert.equal(ip.error.ECANCELED, support.error_of(started.join, started))
  end))

  it("goes on by itself when it waits there", support.on_main(function()
    local started, get = spawn_known(function()
      fiber.yield()
      fiber.sleep(0.001)
      return "slept"
    end)
    fiber.loop:step()
    assert.same({ true }, { coroutine.resume(get()) })
    assert.equal("slept", started:join())
  end))

  it("goes on by itself when it yields there", support.on_main(function()
    local started, get = spawn_known(function()
      fiber.yield()
      coroutine.yield("to somebody")
      return "went on"
    end)
    fiber.loop:step()
    assert.same({ true, "to somebody" }, { coroutine.resume(get()) })
    assert.equal("went on", started:join())
  end))

  it("is running meanwhile for whoever asks", support.on_main(function()
    local started, get = spawn_known(function()
      fiber.yield()
      return fiber.current().status
    end)
    fiber.loop:step()
    assert.same({ true, "running" }, { coroutine.resume(get()) })
    assert.equal(ip.error.ECANCELED, support.error_of(started.join, started))
  end))

  it("keeps nobody waiting when it ends inside the step of another fiber", support.on_main(function()
    local started, get = spawn_known(function()
      fiber.yield()
      return 1
    end)
    local resumer = fiber.spawn(function() return coroutine.resume(get()) end)
    assert.same({ true, 1 }, { resumer:join() })
    assert.equal(ip.error.ECANCELED, support.error_of(started.join, started))
  end))
end)

describe("a coroutine that others have made", function()
  it("is dead after it has waited and returned values", support.on_main(function()
    local co = coroutine.create(function()
      fiber.sleep(0.001)
      return error, "called by a resume"
    end)
    assert.is_true(coroutine.resume(co))
    fiber.run()
    assert.equal("dead", coroutine.status(co))
    assert.same({ false, "cannot resume dead coroutine" }, { coroutine.resume(co) })
  end))

  it("is dead after it has waited in a receive and returned values", support.on_main(function()
    local sock, port = support.bound()
    local co = coroutine.wrap(function() return (sock:receive_string()) end)
    co()
    ip.udp.connect("127.0.0.1", port):send("x")
    fiber.run()
    sock:close()
    collectgarbage()
    assert.is_truthy(tostring(support.error_of(co)):find("dead coroutine", 1, true))
  end))

  for _, way in ipairs { "coroutine", "ip.fiber.coroutine" } do
    local resume = way == "coroutine" and coroutine.resume or fiber.coroutine.resume

    it("obeys a with_timeout that it has entered before " .. way .. " resumes it", support.with_loop(function()
      local sock <close> = support.bound()
      local ended
      local co = coroutine.create(function()
        ended = support.error_of(fiber.with_timeout, 0.001, function()
          coroutine.yield()
          sock:receive_string() -- nobody sends
        end)
      end)
      assert.is_true(coroutine.resume(co))
      assert.is_true(resume(co))
      while not ended do fiber.yield() end
      assert.same({ ip.error.ETIMEDOUT, "with_timeout" }, { ended, ended.operation })
    end))
  end

  it("obeys its own with_timeout and that of the fiber that resumes it", support.with_loop(function()
    local sock <close> = support.bound()
    local inside
    local co = coroutine.create(function()
      inside = support.error_of(fiber.with_timeout, 60, function()
        coroutine.yield()
        sock:receive_string()
      end)
      error(inside)
    end)
    assert.is_true(coroutine.resume(co))
    local outside = support.error_of(fiber.with_timeout, 0.001, function()
      local _, err = fiber.coroutine.resume(co)
      error(err)
    end)
    assert.same({ ip.error.ETIMEDOUT, ip.error.ETIMEDOUT }, { inside, outside })
  end))

  it("is interrupted with the fiber that resumes it, inside its own with_timeout, too", support.with_loop(function()
    local sock <close> = support.bound()
    local ended
    local co = coroutine.create(function()
      ended = support.error_of(fiber.with_timeout, 60, function()
        coroutine.yield()
        sock:receive_string()
      end)
    end)
    assert.is_true(coroutine.resume(co))
    local resumer = fiber.spawn(fiber.coroutine.resume, co)
    while resumer.status ~= "waiting" do fiber.yield() end
    resumer:interrupt()
    resumer:join()
    assert.equal(ip.error.INTERRUPTED, ended)
  end))
end)

describe("a generator that is closed with its fiber", function()
  it("is not collected while it is being closed", support.on_main(function()
    local closed = false
    local started, get = spawn_known(function()
      fiber.coroutine.wrap(function()
        local guard <close> = setmetatable({}, { -- luacheck: ignore guard
          __close = function()
            coroutine.wrap(collectgarbage)()
            closed = true
          end,
        })
        fiber.sleep(60)
      end)()
    end)
    while started.status ~= "waiting" do fiber.loop:step() end
    assert.is_true(coroutine.close(get()))
    collectgarbage()
    assert.is_true(closed)
    assert.equal(ip.error.ECANCELED, support.error_of(started.join, started))
  end))
end)

describe("a wait on the main thread at the limit of nested C calls", function()
  it("raises before it has consumed anything", support.on_main(function()
    local sock, port = support.bound()
    local client = ip.udp.connect("127.0.0.1", port)
    local received = 0
    sock.receive_timeout = 0.02 -- a fiber that is resumed at that depth may not be able to send
    fiber.on_error(function() end)
    local function receive_deep(depth)
      if depth > 0 then return (string.gsub("x", "x", function() return receive_deep(depth - 1) end)) end
      fiber.spawn(client.send, client, "x")
      sock:receive_string()
      received = received + 1
      return "x"
    end
    local sent = 0
    for depth = 180, 199 do
      pcall(receive_deep, depth)
      fiber.run()
      while sock:try_receive(require("byte_span").new(1)) do sent = sent + 1 end
    end
    fiber.on_error()
    assert.equal(0, require("ip.core").fiber.statistics().operations)
    assert.is_true(received > 0 and sent + received <= 20)
    client:close()
    sock:close()
  end))
end)

describe("a coroutine that is closed at the limit of nested C calls", function()
  teardown(process.stop_all)

  -- From Lua 5.4.6 on coroutine.close may fail there before it has called the library's __close.
  it("is received into no more", support.on_main(function()
    local sock, port = support.bound()
    local client = ip.udp.connect("127.0.0.1", port)
    local co = coroutine.create(function() sock:receive(require("byte_span").new(40000)) end)
    assert.is_true(coroutine.resume(co))
    local function close_deep(depth)
      if depth == 0 then coroutine.close(co) return "x" end
      return (string.gsub("x", "x", function() return close_deep(depth - 1) end))
    end
    for depth = 199, 1, -1 do -- too deep at first: then with no C call to spare, with one, and so on
      if coroutine.status(co) == "suspended" then pcall(close_deep, depth) end
    end
    assert.equal("dead", coroutine.status(co))
    collectgarbage()
    client:send(("y"):rep(30000))
    assert.equal(30000, #sock:receive_string())
    client:close()
    sock:close()
  end))
end)
