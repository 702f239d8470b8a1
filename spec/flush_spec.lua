-- What the option coalesce promises of sends: those of a turn leave together at its end, or by flush, and nothing else
-- changes but when errors of the network are told.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local kinds = require "spec.support.kinds"
local namespace = require "spec.support.namespace"
local platform = require "spec.support.platform"
local process = require "spec.support.process"
local support = require "spec.support"
local trace = require "spec.support.trace"

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
          assert.equal("flush: connection refused (ECONNREFUSED)", tostring(error_of(sender.flush, sender)))
        else
          fiber.yield()
          local err = error_of(sender[report], sender, "not sent")
          assert.equal(report .. ": connection refused (ECONNREFUSED)", tostring(err))
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
      tostring(error_of(sender.send_to, sender, "not sent", "127.0.0.1", port)))
    send()
    assert.equal("flush: permission denied (EACCES)", tostring(error_of(sender.flush, sender)))
    sender:flush()
    assert.same({ "before", "behind", "before", "behind" }, receive_all(receiver, 4))
  end))

  it("over v4 from a socket that is for v6 only is refused at once", with_loop(function()
    if not has_v6 then return pending("there is no v6 here") end
    local sender <close> = ip.udp.bind("::1", 0, { coalesce = true, v6_only = true })
    assert.equal("send_to: network is unreachable (ENETUNREACH)",
      tostring(error_of(sender.send_to, sender, "x", "127.0.0.1", 9)))
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
    local turns = 0
    local other = fiber.spawn(function()
      while true do
        turns = turns + 1
        fiber.yield()
      end
    end)
    for _ = 1, 600 do sender:send("x") end
    other:interrupt()
    other:join()
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
    assert.equal("flush: bad file descriptor (EBADF)", tostring(error_of(sock.flush, sock)))
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

-- Programs in processes of their own ----------------------------------------------------------------------------

describe("the system calls of sends with coalesce", function()
  local it_traced = platform.it_where(platform.can_trace(), "strace")

  -- What the program writes, and the calls that it sends with: each with how many were taken, or the error's name.
  local function sends_of(inject, program)
    local log, output = trace.log([[
      local ip = require "ip"
      local sink = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 5 })
      local other = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 5 })
      local out = ip.udp.bind("127.0.0.1", 0, { coalesce = true })
      local function send(text, to) out:send_to(text, "127.0.0.1", (to or sink).local_port) end
      local function received(count, by)
        local list = {}
        for i = 1, count do list[i] = (by or sink):receive_string() end
        return table.concat(list, " ")
      end
    ]] .. program, "-e trace=sendto,sendmsg,sendmmsg " .. inject)
    return output, trace.results(log)
  end

  it_traced("are one for what one message can carry, and one for all else", on_main(function()
    local output, calls = sends_of("", [[
      for i = 1, 20 do send("same") end
      out:flush()
      send("alone")
      out:flush()
      send("one") send("two") send("3") send("four") send("", other) send("", other)
      out:flush()
      print(received(20) == ("same "):rep(20):sub(1, -2), received(5), received(2, other))
    ]])
    assert.equal("true\talone one two 3 four\t \n", output)
    assert.same({ "sendmsg 80", "sendto 5", "sendmmsg 4" }, calls)
  end, 60))

  it_traced("are one for each turn's sends", on_main(function()
    local output, calls = sends_of("", [[
      ip.fiber.run(function()
        for _ = 1, 3 do
          for i = 1, 5 do send("text") end
          ip.fiber.yield()
        end
      end)
      print(received(15) == ("text "):rep(15):sub(1, -2))
    ]])
    assert.equal("true\n", output)
    assert.same({ "sendmsg 20", "sendmsg 20", "sendmsg 20" }, calls)
  end, 60))

  it_traced("ask a path that refuses to cut never again", on_main(function()
    local output, calls = sends_of("-e inject=sendmsg:error=EIO:when=1", [[
      for _ = 1, 2 do
        for i = 1, 4 do send("n" .. i) end
        out:flush()
        print(received(4))
      end
    ]])
    assert.equal("n1 n2 n3 n4\nn1 n2 n3 n4\n", output)
    assert.same({ "sendmsg -1 EIO", "sendmmsg 4", "sendmmsg 4" }, calls)
  end, 60))

  it_traced("do not cut to sizes that the path was too small for", on_main(function()
    -- EMSGSIZE may speak of an older datagram, so the first attempt is repeated; EINVAL may not. What is injected the
    -- second time is the first attempt with another size.
    local expected = {
      EMSGSIZE = { "sendmsg -1 EMSGSIZE", "sendmsg -1 EMSGSIZE", "sendmmsg 3", "sendmmsg 3", "sendmsg 12" },
      EINVAL = { "sendmsg -1 EINVAL", "sendmmsg 3", "sendmmsg 3", "sendmsg -1 EINVAL", "sendmmsg 3" },
    }
    for name, list in pairs(expected) do
      local output, calls = sends_of("-e inject=sendmsg:error=" .. name .. ":when=1..2", [[
        for _, text in ipairs { "large", "large", "tiny" } do
          for i = 1, 3 do send(text) end
          out:flush()
        end
        print(received(9))
      ]])
      assert.equal("large large large large large large tiny tiny tiny\n", output)
      assert.same(list, calls)
    end
  end, 60))

  it_traced("go on behind what the system took, and behind what it refused", on_main(function()
    local output, calls = sends_of("-e inject=sendmmsg:retval=2:when=1 -e inject=sendto:error=EPERM:when=1..2", [[
      for i = 1, 4 do send("text " .. ("x"):rep(i)) end -- two of them are taken in name only
      out:flush()
      print(received(2))
      send("dropped")
      local ok, err = pcall(out.flush, out)
      print(ok, err)
      send("behind")
      out:flush()
      print(received(1))
    ]])
    assert.equal("text xxx text xxxx\nfalse\tflush: operation not permitted (EPERM)\nbehind\n", output)
    assert.same({ "sendmmsg 2", "sendmmsg 2", "sendto -1 EPERM", "sendto -1 EPERM", "sendto 6" }, calls)
  end, 60))

  it_traced("send once more what an error of an older datagram stopped, and tell it", on_main(function()
    local output, calls = sends_of("-e inject=sendmsg:error=EHOSTUNREACH:when=1", [[
      for i = 1, 3 do send("text") end
      print(select(2, pcall(out.flush, out)))
      out:flush()
      print(received(3))
    ]])
    assert.is_truthy(output:find("^flush: .- %(EHOSTUNREACH%)\ntext text text\n$"), output)
    assert.same({ "sendmsg -1 EHOSTUNREACH", "sendmsg 12" }, calls)
  end, 60))
end)

describe("a send with coalesce that the system cannot take yet", function()
  local it_blocked = platform.it_where(namespace.can_be_slow(), "tc, and namespaces")

  -- What the programs begin with; see spec/support/blocked_link.lua.
  local prelude = [[
    local ip = require "ip"
    local fiber = ip.fiber
    local link = require "spec.support.blocked_link"
    local sink, out = link.sink, link.out
    local unblock, arriving, equal = link.unblock, link.arriving, link.equal
    local waiting, ends_with = link.waiting, link.ends_with
    out:set_option("coalesce", true)

    -- Keeps as much as there is room for; how many that were.
    local function fill()
      local count = 0
      while out:try_send("kept " .. count + 1) do count = count + 1 end
      return count
    end
  ]]

  local function blocked(body)
    return function()
      local network <close> = assert(namespace.blocked())
      assert.equal("passed\n", trace.run_under(network:inside(), prelude .. body .. "\nprint('passed')"))
    end
  end

  it_blocked("is kept, and leaves in order as soon as the system takes it", blocked [[
    fiber.run(function()
      for i = 1, 10 do out:send("text " .. i) end
      for _ = 1, 20 do fiber.yield() end
      equal(10, out.send_queue_count)
      equal(61, out.send_queue_size)
      out:send("behind")
      unblock()
      equal("text 1 text 2 text 3 text 4 text 5 text 6 text 7 text 8 text 9 text 10 behind", arriving(11))
      equal(0, out.send_queue_count)
    end)
  ]])

  it_blocked("waits when there is no more room, and completes in order", blocked [[
    fiber.run(function()
      local kept = fill()
      equal(true, kept >= 64)
      equal("EAGAIN", select(2, out:try_send("x")).name)
      local first, second = waiting(out.send, out, "first"), waiting(out.send, out, "second")
      equal(kept + 2, out.send_queue_count)
      equal(nil, (out:try_send("x")))
      unblock()
      equal(true, (first:join()))
      equal(true, (second:join()))
      link.skip()
      for i = 1, kept do equal("kept " .. i, (sink:receive_string())) end
      equal("first", (sink:receive_string()))
      equal("second", (sink:receive_string()))
    end)
  ]])

  it_blocked("flush waits for it, and ends by send_timeout, cancel, close and an interruption", blocked [[
    fiber.run(function()
      out:send("kept")
      out.send_timeout = 0.01
      equal("ETIMEDOUT", select(2, pcall(out.flush, out)).name)
      out.send_timeout = 0
      equal("ETIMEDOUT", select(2, pcall(out.flush, out)).name)
      out.send_timeout = nil
      equal("ETIMEDOUT", select(2, pcall(fiber.with_timeout, 0.01, out.flush, out)).name)
      local flushing = waiting(out.flush, out)
      equal(1, out.send_queue_count) -- the datagram, not the call
      out:cancel()
      ends_with("ECANCELED", flushing)
      flushing = waiting(out.flush, out)
      flushing:interrupt()
      ends_with("INTERRUPTED", flushing)
      equal("EBUSY", select(2, pcall(out.release, out)).name)
      local flushed = waiting(out.flush, out)
      unblock()
      equal(true, (flushed:join()))
      equal(0, out.send_queue_count)
      equal("kept", arriving(1))
    end)
  ]])

  it_blocked("ends by send_timeout, cancel and close where it waits, and what was accepted stays", blocked [[
    fiber.run(function()
      local kept = fill()
      out.send_timeout = 0.01
      equal("ETIMEDOUT", select(2, pcall(out.send, out, "late")).name)
      out.send_timeout = nil
      local fib = waiting(out.send, out, "cancelled")
      out:cancel()
      ends_with("ECANCELED", fib)
      equal(kept, out.send_queue_count)
      unblock()
      link.skip()
      for i = 1, kept do equal("kept " .. i, (sink:receive_string())) end
      sink.receive_timeout = 0.05
      equal("ETIMEDOUT", select(2, pcall(sink.receive_string, sink)).name)
    end)
  ]])

  it_blocked("is tried once more by close, and then dropped", blocked [[
    fiber.run(function()
      local kept = fill()
      local sending, flushing = waiting(out.send, out, "waiting"), waiting(out.flush, out)
      out:close()
      ends_with("ECANCELED", sending)
      ends_with("ECANCELED", flushing)
      unblock()
      equal("", arriving(0))
    end)
  ]])

  it_blocked("goes to the peer that it was meant for", blocked [[
    fiber.run(function()
      local elsewhere = ip.udp.bind("127.0.0.1", 0)
      out:send("to the first")
      out:connect("127.0.0.1", elsewhere.local_port)
      out:send("to the second")
      out:disconnect()
      equal(2, out.send_queue_count)
      unblock()
      equal("to the first", arriving(1))
      equal("to the second", (elsewhere:receive_string()))
    end)
  ]])

  it_blocked("keeps its place before what cannot be kept, which waits", blocked [[
    fiber.run(function()
      out:send("first")
      local message = waiting(out.send_message, out, "second", { hops = 3 })
      equal(nil, (out:try_send("x")))
      out:set_option("unicast_hops", 5)
      local third = waiting(out.send, out, "third")
      out:set_option("coalesce", false)
      equal(1 + 2, out.send_queue_count)
      unblock()
      equal(true, (message:join()))
      equal(true, (third:join()))
      equal("first second third", arriving(3))
      out:send("plain")
      equal(0, out.send_queue_count)
    end)
  ]])

  it_blocked("is nothing that a program waits for which ends", blocked [[
    out:send("last")
    fiber.run(fiber.yield)
    equal(1, out.send_queue_count)
    unblock()
    link.skip()
    equal("last", (sink:receive_string()))
    out:send("left behind")
  ]])

  it_blocked("or that the path is too small for is dropped, and told with the mtu", function()
    local network <close> = assert(namespace.blocked())
    assert.is_true(network:try("tc qdisc del dev lo root") and network:try("ip link set lo mtu 1500"))
    assert.equal("passed\n", trace.run_under(network:inside(), [[
      local ip = require "ip"
      local function equal(expected, value)
        if expected ~= value then error(("expected %s, got %s"):format(expected, value), 2) end
      end
      local large = ("x"):rep(2000)
      for _, address in ipairs { "127.0.0.1", "::1" } do
        for _, errors in ipairs { false, true } do
          local sink = ip.udp.bind(address, 0, { receive_timeout = 2 })
          local out = ip.udp.connect(address, sink.local_port, { coalesce = true, path_mtu_discovery = "do",
            receive_errors = errors })
          out:send("before")
          for _ = 1, 3 do out:send(large) end
          out:send("behind")
          local ok, err = pcall(out.flush, out)
          equal("EMSGSIZE", err.name)
          equal(1500, err.mtu)
          out:flush()
          out:send(large)
          ip.fiber.run(ip.fiber.yield)
          ok, err = pcall(out.send, out, "not sent")
          equal("EMSGSIZE", err.name)
          equal(1500, err.mtu)
          if errors then -- the queue tells it without a peer
            local loose <close> = ip.udp.bind(address, 0, { coalesce = true, path_mtu_discovery = "do",
              receive_errors = true })
            loose:send_to(large, address, sink.local_port)
            ip.fiber.run(ip.fiber.yield)
            equal(1500, select(2, pcall(loose.send_to, loose, "not sent", address, sink.local_port)).mtu)
          end
          out:send("last")
          out:flush()
          for _, text in ipairs { "before", "behind", "last" } do equal(text, (sink:receive_string())) end
          local told = 0
          while out:receive_error() do told = told + 1 end
          equal(errors and 4 or 0, told)
        end
      end
      print("passed")
    ]]))
  end)

  it_blocked("does not spin while it waits", function()
    if not platform.can_trace() then return pending("strace may not trace here") end
    local network <close> = assert(namespace.blocked())
    local counts, output = trace.count(prelude .. [[
      out:send("kept")
      fiber.sleep(0.3)
      print(out.send_queue_count)
    ]], network:inside())
    assert.equal("1\n", output)
    local polls = counts.epoll_wait + counts.epoll_pwait
    assert.is_true(polls > 0 and polls < 20, "polls: " .. polls)
  end)
end)
