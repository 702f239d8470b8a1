-- What on_error promises of the loops over datagrams: it decides whether a loop goes on after an error of a receive.
local ip = require "ip"
local garbage = require "spec.support.loops".garbage
local support = require "spec.support"

local fiber = ip.fiber
local bound, error_of = support.bound, support.error_of
local with_loop = support.with_loop
local waiting = support.waiting

-- Both loops, as functions from (sock, take, config): take(text) is called for each datagram.
local loops = {
  datagrams = function(sock, take, config)
    for data in sock:datagrams(config) do take(tostring(data)) end
  end,
  receive_loop = function(sock, take, config)
    return sock:receive_loop(function(data) take(tostring(data)) end, config)
  end,
}

-- A socket whose next receive raises ECONNREFUSED: loopback reports at once.
local function refused()
  local sock = ip.udp.connect("127.0.0.1", support.dead_port())
  sock:send("to nobody")
  return sock
end

for name, loop in pairs(loops) do
  describe("on_error of " .. name, function()
    for where, run in pairs(support.contexts) do
      it("is asked about an error, and lets the loop go on with the next datagram, " .. where, run(function()
        local sock = refused()
        local asked, seen = {}, {}
        local sender = fiber.spawn(function()
          support.wait_until(function() return #asked == 1 end)
          local peer <close> = ip.udp.bind(sock.remote_address, sock.remote_port)
          peer:send_to("from the peer", "127.0.0.1", sock.local_port)
          support.wait_until(function() return #seen == 1 end)
          sock:close()
        end)
        loop(sock, function(text) seen[#seen + 1] = text end, { on_error = function(...)
          asked[#asked + 1] = table.pack(...)
          return true
        end })
        sender:join()
        assert.same({ "from the peer" }, seen)
        assert.equal(1, asked[1].n)
        assert.equal(ip.error.ECONNREFUSED, asked[1][1])
        assert.equal(name, asked[1][1].operation)
        assert.is_true(asked[1][1].transient)
        assert.matches("loop_error_spec", asked[1][1].where)
      end))

      it("may say so again and again where each receive waits, " .. where, run(function()
        local sock = bound()
        sock.receive_timeout = 1e-5
        local asked = 0
        local err = error_of(loop, sock, error, { on_error = function(e)
          assert.equal(ip.error.ETIMEDOUT, e)
          asked = asked + 1
          return asked < 1500
        end })
        assert.equal(ip.error.ETIMEDOUT, err)
        assert.equal(1500, asked)
        sock:close()
      end))

      it("lets other fibers run though every receive fails at once, " .. where, run(function()
        local sock = bound()
        sock.receive_timeout = 0
        local ran = false
        local other = fiber.spawn(function() ran = true end)
        local asked = 0
        local err = error_of(loop, sock, error, { on_error = function()
          asked = asked + 1
          return not ran and asked < 100000
        end })
        assert.equal(ip.error.ETIMEDOUT, err)
        assert.is_true(ran)
        other:join()
        sock:close()
      end))

      it("may wait, " .. where, run(function()
        local sock = refused()
        local asked = false
        local err = error_of(loop, sock, error, { on_error = function()
          fiber.sleep(0.001)
          asked = true
          sock.receive_timeout = 0.001
          fiber.sleep(0.001)
          return sock.receive_timeout == nil
        end })
        assert.is_true(asked)
        assert.equal(ip.error.ECONNREFUSED, err)
        sock:close()
      end))
    end

    it("gets the very error that is raised when it does not say true", with_loop(function()
      for _, answer in ipairs { false, "nothing" } do
        local sock = refused()
        local asked
        local err = error_of(loop, sock, error, { on_error = function(e)
          asked = e
          if answer == false then return false end
        end })
        assert.is_true(rawequal(asked, err))
        assert.equal(ip.error.ECONNREFUSED, err)
        sock:close()
      end
    end))

    it("may raise, which leaves the loop", with_loop(function()
      local sock = refused()
      assert.equal("mine", error_of(loop, sock, error, { on_error = function() error("mine", 0) end }))
      sock:close()
    end))

    it("may close the socket, which ends the loop", with_loop(function()
      local sock = refused()
      local reason = loop(sock, error, { on_error = function()
        sock:close()
        return true
      end })
      if name == "receive_loop" then assert.equal("closed", reason) end
    end))

    it("is asked about the error of a receive that waits", with_loop(function()
      local sock = ip.udp.connect("127.0.0.1", support.dead_port())
      local asked = {}
      local looping = waiting(pcall, loop, sock, error, { on_error = function(err)
        asked[#asked + 1] = err.name
        return #asked < 3
      end })
      for i = 1, 3 do
        sock:send("to nobody")
        support.wait_until(function() return #asked == i end)
      end
      local ok, err = looping:join()
      assert.is_false(ok)
      assert.equal(ip.error.ECONNREFUSED, err)
      assert.same({ "ECONNREFUSED", "ECONNREFUSED", "ECONNREFUSED" }, asked)
      sock:close()
    end))

    it("is asked about ESHUTDOWN, and lets others run meanwhile", with_loop(function()
      local sock = ip.udp.connect("127.0.0.1", support.dead_port())
      sock:shutdown("receive")
      local ran = false
      local other = fiber.spawn(function() ran = true end)
      local err = error_of(loop, sock, error, { max_ready = math.maxinteger, on_error = function() return not ran end })
      assert.equal(ip.error.ESHUTDOWN, err)
      other:join()
      sock:close()
    end))

    it("is not asked about cancel, close, an interruption and the deadline of a scope", with_loop(function()
      local config = { on_error = function() error("asked") end }
      local sock = bound()
      local looping = waiting(pcall, loop, sock, error, config)
      sock:cancel()
      local _, err = looping:join()
      assert.equal(ip.error.ECANCELED, err)
      err = error_of(fiber.with_timeout, 0.01, loop, sock, error, config)
      assert.equal("with_timeout", err.operation)
      err = error_of(fiber.with_timeout, 0, loop, sock, error, config)
      assert.equal("with_timeout", err.operation)
      looping = waiting(loop, sock, error, config)
      looping:interrupt()
      looping:join()
      assert.is_true(looping.interruption_caught)
      looping = waiting(loop, sock, error, config)
      sock:close()
      looping:join()
      assert.equal(ip.error.EBADF, error_of(loop, sock, error, config))
    end))

    it("is not asked about a descriptor that others have closed", with_loop(function()
      local sock = bound()
      ip.file_descriptor.new(sock.native_handle):close()
      local err = error_of(loop, sock, error, { on_error = function() error("asked") end })
      assert.equal(ip.error.EBADF, err)
      sock:close()
    end))

    it("is asked about a datagram that is cut, where on_truncation raises", with_loop(function()
      local sock, client = support.receiver()
      sock.on_truncation = "raise"
      for _, text in ipairs { "too long", "fits" } do client:send(text) end
      local asked, seen = {}, {}
      loop(sock, function(text)
        seen[#seen + 1] = text
        sock:close()
      end, { capacity = 4, on_error = function(err)
        asked[#asked + 1] = err.name
        return true
      end })
      assert.same({ "EMSGSIZE" }, asked)
      assert.same({ "fits" }, seen)
      client:close()
    end))

    it("goes with a stop fiber and with a stop function", with_loop(function()
      local sock = refused()
      local stop = fiber.spawn(fiber.sleep, 0.01)
      local asked = 0
      local function goes_on()
        asked = asked + 1
        return true
      end
      loop(sock, error, { stop = stop, on_error = goes_on })
      assert.equal(1, asked)
      stop:join()
      sock:close()

      local receiver, client = support.receiver()
      receiver.receive_timeout = 0
      local seen = 0
      client:send("one")
      loop(receiver, function() seen = seen + 1 end, { on_error = goes_on, stop = function()
        client:send("two")
        return seen == 2
      end })
      assert.equal(2, seen)
      receiver:close()
      client:close()
    end))

    it("is a function", with_loop(function()
      local sock = bound()
      for _, value in ipairs { true, 17, "text", {} } do
        local message = error_of(loop, sock, error, { on_error = value })
        assert.is_truthy(message:find("option 'on_error': function expected", 1, true), message)
      end
      sock:close()
    end))
  end)
end

describe("datagrams with on_error", function()
  it("makes no garbage per datagram", with_loop(function()
    assert.equal(0, garbage(function(sock, take, config)
      for data in sock:datagrams(config) do take(data) end
    end, { max_ready = 8, on_error = error, stop = function() return false end }))
  end))
end)
