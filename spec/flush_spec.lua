-- What the option coalesce promises of sends: those of an iteration of the loop leave together at its end, or by flush,
-- and nothing else changes but when errors of the network are told.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local kinds = require "spec.support.kinds"
local platform = require "spec.support.platform"
local process = require "spec.support.process"
local support = require "spec.support"

local byte_span, fiber, message_flag = ip.byte_span, ip.fiber, ip.message_flag
local error_of, with_loop, on_main = support.error_of, support.with_loop, support.on_main
local run_program = support.run_program
local assert_empty = assertions.assert_empty
local is_linux, has_v6 = platform.is_linux, platform.has_v6
local open_socket, coalescing = kinds.open, kinds.coalescing

local function receive_all(sock, count)
  local list = {}
  for i = 1, count do list[i] = sock:receive_string() end
  assert.is_nil((sock:try_receive(byte_span.new(1))))
  return list
end

for _, kind in ipairs(kinds.all) do
  local it_kind = platform.it_family(kind.family)

  describe("a send with coalesce, " .. kind.name, function()
    it_kind("leaves at the end of the turn, and is counted until then", with_loop(function()
      local receiver <close>, port = open_socket(kind)
      local sender <close> = coalescing(kind)
      assert.equal(5, sender:send_to("first", kind.loopback, port))
      assert.equal(6, sender:try_send_to({ "sec", byte_span.append("ond") }, kind.loopback, port))
      assert.equal(0, sender:send_to("", kind.loopback, port))
      assert.equal(3, sender.send_queue_count)
      assert.equal(11, sender.send_queue_size)
      assert_empty(receiver)
      fiber.yield()
      assert.equal(0, sender.send_queue_count)
      assert.equal(0, sender.send_queue_size)
      assert.same({ "first", "second", "" }, receive_all(receiver, 3))
    end))

    it_kind("keeps the order for each peer, whatever the sizes", with_loop(function()
      local sender <close> = coalescing(kind)
      local receivers, expected = {}, { {}, {}, {} }
      for i = 1, 3 do receivers[i] = open_socket(kind, { receive_buffer_size = 4000000 }) end
      local sizes = { 10, 10, 10, 4, 10, 0, 0, 300, 300, 9000, 1, 1, 1, 1, 2 }
      for i = 1, 150 do
        local to = i % 7 == 0 and 3 or i // 20 % 2 + 1
        local text = ("%03d"):format(i):rep(sizes[i % #sizes + 1])
        sender:send_to(text, kind.loopback, receivers[to].local_port)
        expected[to][#expected[to] + 1] = text
      end
      sender:flush()
      for i = 1, 3 do
        assert.same(expected[i], receive_all(receivers[i], #expected[i]))
        receivers[i]:close()
      end
    end))

    it_kind("takes more in a turn than there is room for", with_loop(function()
      local receiver <close>, port = open_socket(kind, { receive_buffer_size = 8000000 })
      local sender <close> = coalescing(kind)
      local other <close>, other_port = open_socket(kind)
      for i = 1, 40 do
        sender:send_to(("%02d"):format(i):rep(kind.largest // 2), kind.loopback, port)
        assert.equal(("%02d"):format(i):rep(kind.largest // 2), (receiver:receive_string()))
      end
      for i = 1, 200 do sender:send_to("small " .. i, kind.loopback, i % 2 == 0 and port or other_port) end
      for i = 1, 200 do assert.equal("small " .. i, ((i % 2 == 0 and receiver or other):receive_string())) end
    end))

    it_kind("to the connected peer, too, with flags, and by send_with", with_loop(function()
      local receiver <close>, port = open_socket(kind)
      local sender <close> = coalescing(kind)
      sender:connect(kind.loopback, port)
      sender:send("1")
      sender:send_with(1, function(span) span:copy("2") end)
      sender:send("3", message_flag.do_not_route)
      sender:send("4")
      sender:try_send("5")
      sender:send_to_with(1, function(span) span:copy("6") end, kind.loopback, port)
      sender:flush()
      assert.same({ "1", "2", "3", "4", "5", "6" }, receive_all(receiver, 6))
    end))

    it_kind("keeps its place before and behind messages and batches", with_loop(function()
      local receiver <close>, port = open_socket(kind, { receive_hops = true })
      local sender <close> = coalescing(kind)
      local batch = ip.udp.batch.new(2, 10)
      batch:set(1, "4", kind.loopback, port)
      batch:set(2, "5", kind.loopback, port)
      sender:send_to("1", kind.loopback, port)
      sender:send_message("2", { address = kind.loopback, port = port, hops = 7 })
      sender:send_to("3", kind.loopback, port)
      assert.equal(2, sender:send_many(batch))
      sender:send_to("6", kind.loopback, port)
      sender:set_option("segment_size", 1)
      assert.equal(2, sender:send_to("78", kind.loopback, port))
      sender:set_option("segment_size", 0)
      sender:send_to("9", kind.loopback, port)
      sender:reply_message("0", { address = ip.address.new(kind.loopback), port = port })
      sender:flush()
      local list = {}
      for i = 1, 10 do
        local buf = byte_span.new(10)
        local n, info = receiver:receive_message(buf)
        list[i] = buf:sub(1, n)
        assert.equal(i == 2, info.hops == 7)
      end
      assert.equal("1234567890", table.concat(list))
    end))

    it_kind("raises at once what it raises without the option", with_loop(function()
      local plain <close>, port = open_socket(kind)
      local sender <close> = coalescing(kind)
      local closed = ip.udp.socket.new()
      local other = kind.any == "0.0.0.0" and "::1" or "127.0.0.1"
      local function outcome(sock, method, ...)
        local ok, err = pcall(sock[method], sock, ...)
        return ok and err or tostring(err)
      end
      local calls = {
        { "send", "x" }, { "try_send", "x" }, { "send_with", 1, function() end },
        { "send_to", "x", kind.loopback, 0 }, { "try_send_to", "x", kind.loopback, 0 },
        { "send_to", ("x"):rep(kind.largest + 1), kind.loopback, port },
        { "send_to", ("x"):rep(65536), kind.loopback, port },
        { "send_to", "x", other, port }, { "send_to", "x", "255.255.255.255", 9 },
        { "send_to", "x", kind.loopback, port, message_flag.peek },
        { "send_to", "x", kind.loopback, port, message_flag.out_of_band },
        { "send_to", "x", kind.loopback, port, 1 << 30 },
        { "send_to", "x", kind.loopback, 65536 }, { "send_to", 1, kind.loopback, port },
      }
      for _, call in ipairs(calls) do
        assert.equal(outcome(plain, table.unpack(call)), outcome(sender, table.unpack(call)), call[1])
      end
      for _, sock in ipairs { plain, sender } do sock:connect(kind.loopback, port) end
      for _, call in ipairs { { "send", ("x"):rep(kind.largest + 1) }, { "send", ("x"):rep(65536) } } do
        assert.equal(outcome(plain, table.unpack(call)), outcome(sender, table.unpack(call)))
      end
      for _, sock in ipairs { plain, sender } do sock:shutdown("send") end
      for _, call in ipairs { { "send", "x" }, { "try_send", "x" }, { "send_to", "x", kind.loopback, port } } do
        assert.equal(outcome(plain, table.unpack(call)), outcome(sender, table.unpack(call)))
      end
      assert.equal(ip.error.EBADF, error_of(closed.flush, closed))
      assert.equal(0, sender.send_queue_count)
    end))

    it_kind("shows the port that it makes the system choose", with_loop(function()
      local receiver <close>, port = open_socket(kind)
      local sender <close> = ip.udp.socket.new()
      sender:open(kind.any == "::" and "v6" or "v4")
      if kind.any == "::" then sender:set_option("v6_only", false) end
      sender:set_option("coalesce", true)
      sender:send_to("1", kind.loopback, port)
      local chosen = sender.local_port
      assert.is_true(chosen ~= 0)
      sender:send_to("2", kind.loopback, port)
      assert.equal(1, sender.send_queue_count)
      for _ = 1, 2 do assert.equal(chosen, (select(3, receiver:receive_string()))) end
      sender:connect(kind.loopback, port)
      sender:disconnect() -- gives the port back
      sender:send_to("3", kind.loopback, port)
      assert.is_true(sender.local_port ~= 0)
      assert.equal("3", (receiver:receive_string()))
    end))

    it_kind("leaves before what would change its meaning", with_loop(function()
      local receiver <close>, port = open_socket(kind)
      local elsewhere <close>, elsewhere_port = open_socket(kind)
      local heir <close> = ip.udp.socket.new()
      local ways = {
        flush = function(sock) sock:flush() end,
        close = function(sock) sock:close() end,
        ["<close>"] = function(sock) local guard <close> = sock end, -- luacheck: ignore guard
        shutdown = function(sock) sock:shutdown("send") end,
        connect = function(sock) sock:connect(kind.loopback, elsewhere_port) end,
        disconnect = function(sock) sock:disconnect() end,
        ["an option"] = function(sock) sock:set_option("unicast_hops", 9) end,
        ["coalesce off"] = function(sock) sock:set_option("coalesce", false) end,
        release = function(sock) heir:assign(kind.any == "::" and "v6" or "v4", sock:release()) heir:close() end,
      }
      for name, way in pairs(ways) do
        local sender <close> = coalescing(kind)
        sender:connect(kind.loopback, port)
        sender:send(name)
        sender:send(name)
        assert_empty(receiver)
        way(sender)
        local buf = byte_span.new(100)
        for _ = 1, 2 do
          local n = receiver:try_receive(buf:resize(100))
          assert.is_not_nil(n, name)
          assert.equal(name, buf:sub(1, n))
        end
        assert_empty(receiver)
        assert_empty(elsewhere)
      end
    end))

    it_kind("that was accepted is not cancelled", with_loop(function()
      local receiver <close>, port = open_socket(kind)
      local sender <close> = coalescing(kind)
      sender:send_to("accepted", kind.loopback, port)
      sender:cancel()
      assert.equal(1, sender.send_queue_count)
      assert.equal("accepted", (receiver:receive_string()))
    end))

    it_kind("reports an older refusal at the next send, and the datagrams are sent again", with_loop(function()
      if not is_linux then return pending("what other systems report is not known") end
      local sender <close> = coalescing(kind)
      for _, report in ipairs { "send", "try_send", "flush" } do
        local receiver, port = open_socket(kind)
        receiver:close()
        sender:connect(kind.loopback, port)
        sender:send("refused")
        sender:flush()
        receiver = ip.udp.socket.new()
        receiver:open(kind.any == "::" and "v6" or "v4")
        if kind.any == "::" then receiver:set_option("v6_only", false) end
        receiver:bind(kind.any, port)
        receiver.receive_timeout = 2
        sender:send("again 1")
        sender:send("again 2")
        if report == "flush" then
          assert.equal("flush: connection refused (ECONNREFUSED)", support.text_of(error_of(sender.flush, sender)))
        else
          fiber.yield()
          local err = error_of(sender[report], sender, "not sent")
          assert.equal(report .. ": connection refused (ECONNREFUSED)", support.text_of(err))
        end
        sender:send("after")
        sender:flush()
        assert.same({ "again 1", "again 2", "after" }, receive_all(receiver, 3))
        receiver:close()
      end
    end))

    it_kind("with receive_errors on leaves older errors to receives", with_loop(function()
      if not is_linux then return pending("receive_errors is Linux's") end
      local receiver <close>, port = open_socket(kind)
      local sender <close> = coalescing(kind, { receive_errors = true })
      local dead = support.dead_port()
      sender:send_to("refused", kind.loopback, dead)
      sender:flush()
      for i = 1, 5 do sender:send_to("text " .. i, kind.loopback, port) end
      sender:flush()
      assert.same({ "text 1", "text 2", "text 3", "text 4", "text 5" }, receive_all(receiver, 5))
      assert.equal(ip.error.ECONNREFUSED, error_of(sender.receive_string, sender))
      assert.equal(dead, sender:receive_error().port)
    end))
  end)
end

describe("a send with coalesce", function()
  it("that the system refuses later is reported at the next one, and hinders no other", with_loop(function()
    if not is_linux then return pending("whose broadcast address is not known") end
    local receiver <close>, port = support.bound()
    local sender <close> = ip.udp.bind("127.0.0.1", 0, { coalesce = true })
    local function send() -- 127.255.255.255 is a broadcast address by its route alone: EACCES
      sender:send_to("before", "127.0.0.1", port)
      for i = 1, 3 do sender:send_to("refused " .. i, "127.255.255.255", port) end
      sender:send_to("behind", "127.0.0.1", port)
    end
    send()
    fiber.yield()
    assert.equal("send_to: permission denied (EACCES)",
      support.text_of(error_of(sender.send_to, sender, "not sent", "127.0.0.1", port)))
    send()
    assert.equal("flush: permission denied (EACCES)", support.text_of(error_of(sender.flush, sender)))
    sender:flush()
    assert.same({ "before", "behind", "before", "behind" }, receive_all(receiver, 4))
  end))

  it("over v4 from a socket that is for v6 only is refused at once", with_loop(function()
    if not has_v6 then return pending("there is no v6 here") end
    local sender <close> = ip.udp.bind("::1", 0, { coalesce = true, v6_only = true })
    assert.equal("send_to 127.0.0.1:9: network is unreachable (ENETUNREACH): the socket is for IPv6 addresses only",
      support.text_of(error_of(sender.send_to, sender, "x", "127.0.0.1", 9)))
    assert.equal(0, sender.send_queue_count)
  end))

  it("reaches others while the sender does nothing more", with_loop(function()
    local receiver <close>, port = support.bound()
    receiver.receive_timeout = 10
    local fifo = os.tmpname() -- opening it blocks, because nobody writes to it
    os.remove(fifo)
    assert.is_true(os.execute("mkfifo " .. fifo))
    for _, body in ipairs {
      "ip.fiber.run(function() out:send('now') ip.fiber.sleep(1000) end)",
      "out:send('now') ip.fiber.sleep(1000)",
      "ip.fiber.spawn(function() out:send('now') out:receive_string() end) ip.fiber.sleep(1000)",
      "out:send('now') ip.fiber.loop:step() io.open(arg[1])",
      "out:send('now') ip.fiber.loop:timeout() io.open(arg[1])",
      "ip.fiber.spawn(function() out:send('now') end) ip.fiber.loop:step() io.open(arg[1])",
    } do
      local path = os.tmpname()
      local file = assert(io.open(path, "w"))
      file:write(("local ip = require 'ip' local out = ip.udp.connect('127.0.0.1', %d, { coalesce = true })\n"):format(
        port), body)
      file:close()
      local program <close> = process.start(process.lua(path, fifo)) -- luacheck: ignore program
      local ok, text = pcall(receiver.receive_string, receiver)
      os.remove(path)
      if not ok then os.remove(fifo) end
      assert.equal("now", text)
    end
    os.remove(fifo)
  end, 60))

  it("leaves at the end of the program", with_loop(function()
    local receiver <close>, port = support.bound()
    receiver.receive_timeout = 10
    for _, ending in ipairs {
      "", "ip.fiber.spawn(function() out:send('second') end)", "os.exit(0, true)", "error('on purpose')", "out = nil",
      "ip.fiber.run(os.exit, 0, true)", "local s <close> = out", "collectgarbage('stop')",
    } do
      run_program(([[
        local ip = require "ip"
        local out = ip.udp.connect("127.0.0.1", %d, { coalesce = true })
        out:send("last")
        %s]]):format(port, ending))
      assert.equal("last", (receiver:receive_string()))
      receiver:try_receive(byte_span.new(10))
    end
  end, 60))

  it("leaves with a socket that is collected", with_loop(function()
    local receiver <close>, port = support.bound()
    do
      local sender = ip.udp.connect("127.0.0.1", port, { coalesce = true })
      sender:send("orphan")
    end
    collectgarbage()
    collectgarbage()
    local buf = byte_span.new(10)
    assert.equal(6, receiver:try_receive(buf))
  end))

  it("needs nothing of the loop on the main thread, where flush sends at once", on_main(function()
    local receiver <close>, port = support.bound()
    local sender <close> = ip.udp.connect("127.0.0.1", port, { coalesce = true })
    for i = 1, 3 do sender:send("text " .. i) end
    assert_empty(receiver)
    sender:flush()
    assert.same({ "text 1", "text 2", "text 3" }, receive_all(receiver, 3))
  end))

  it("does not go with the copy that the caller keeps", with_loop(function()
    local receiver <close>, port = support.bound()
    local sender <close> = ip.udp.connect("127.0.0.1", port, { coalesce = true })
    local buf = byte_span.append("before")
    sender:send(buf)
    buf:copy("behind")
    sender:send(buf)
    sender:flush()
    assert.same({ "before", "behind" }, receive_all(receiver, 2))
  end))

  it("lets other fibers run", with_loop(function()
    local receiver <close>, port = support.bound()
    local sender <close> = ip.udp.connect("127.0.0.1", port, { coalesce = true })
    local turns = support.turns_during(function()
      for _ = 1, 600 do sender:send("x") end
    end)
    assert.is_true(turns >= 3, "turns: " .. turns)
    assert.is_true(receiver:io_control("bytes_readable") > 0)
  end))
end)

describe("flush", function()
  it("does nothing where nothing is kept", with_loop(function()
    local sock <close> = ip.udp.bind("127.0.0.1", 0)
    assert.equal(0, select("#", sock:flush()))
    sock:set_option("coalesce", true)
    assert.equal(0, select("#", sock:flush()))
    sock:close()
    local text = support.text_of(error_of(sock.flush, sock))
    assert.equal("flush: bad file descriptor (EBADF): the socket is not open", text)
  end))

  it("is a call that suspends: it checks, and is interrupted", with_loop(function()
    local sock <close> = ip.udp.bind("127.0.0.1", 0, { coalesce = true })
    local met
    local interrupted = fiber.spawn(function() met = error_of(sock.flush, sock) end)
    interrupted:interrupt()
    interrupted:join()
    assert.equal("INTERRUPTED", met.name)
    local refused = error_of(string.gsub, "x", "x", function() sock:flush() end)
    assert.is_truthy(tostring(refused):find("cannot wait in flush", 1, true))
  end))
end)
