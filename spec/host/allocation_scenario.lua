-- Uses every part of the library with few allocations; run by failing_allocator. What must hold in spite of a lack of
-- memory is asserted with a message that has the word "promise" in it.

local ip = require "ip"
local fiber = ip.fiber

fiber.on_error(function() end)

local function promise(condition, text)
  if not condition then error("broken promise: " .. text, 0) end
end

local function echo(server, buffer)
  local n, address, port = server:receive_from(buffer:resize(32))
  server:send_to(buffer:resize(n), address, port)
end

fiber.run(function()
  local server <close> = ip.udp.bind("127.0.0.1", 0)
  local client <close> = ip.udp.connect("127.0.0.1", server.local_port, { receive_timeout = 5 })
  local buffer = ip.byte_span.new(32)
  local echoing = fiber.spawn(echo, server, buffer)
  client:send({ "he", ip.byte_span.append("l"), "lo" })
  local text = client:receive_string()
  promise(text == "hello", "an echo is what was sent")
  echoing:join()

  local ok, err = pcall(fiber.with_timeout, 0.001, server.receive, server, buffer)
  promise(not ok and (err == ip.error.ETIMEDOUT or type(err) == "string"), "a deadline ends a receive")

  local sleeper = fiber.spawn(function()
    local guard <close> = setmetatable({}, { __close = function() end }) -- luacheck: ignore guard
    fiber.sleep(60)
  end)
  fiber.yield()
  sleeper:interrupt()
  sleeper:join()

  local cancelled = fiber.spawn(pcall, server.receive_from, server, buffer)
  fiber.yield()
  server:cancel()
  promise(select(2, cancelled:join()) ~= true, "cancel ends a receive")

  local wrapped = coroutine.wrap(function() server:receive_string() end)
  wrapped()
  client:send("to a foreign coroutine")
  fiber.sleep(0.001)

  fiber.spawn(error, "nobody joins")
  fiber.yield()
  fiber.shield(fiber.yield)
  promise(ip.tostring(ip.toendpoint("[::1]:53")) == "[::1]:53", "endpoints round-trip")
  promise(ip.endpoint_from_key(ip.endpoint_key("1.2.3.4", 5)) == ip.address.new("1.2.3.4"), "keys round-trip")
  local found = ip.udp.get_address_info("192.0.2.1", 53, ip.address_info_flag.canonical_name)
  promise(found[1].address == ip.address.new("192.0.2.1") and #found == 1, "a literal address is its own result")
  promise(#ip.udp.get_address_v4_info("localhost", 53) > 0, "this machine has a name")
  promise(#ip.udp.get_name_info("127.0.0.1", 40001) == 1, "an address has one entry of names")
  local closed = coroutine.create(ip.udp.get_address_info)
  if coroutine.resume(closed, "localhost", 53) then coroutine.close(closed) end
  promise(#ip.interfaces() > 0 and #ip.host_name() > 0, "the machine knows itself")

  local seen = 0
  local stop = fiber.spawn(function()
    client:send_with(2, function(span) span:copy("ab") end)
    server:send_to_with(2, function() end, "127.0.0.1", client.local_port)
    fiber.sleep(0.001)
  end)
  local reason = server:receive_loop(function(span)
    seen = seen + 1
    promise(#span == 2, "a loop's span shows the datagram")
    return ip.byte_span.new(32)
  end, { buffer = buffer, stop = stop })
  promise(reason == "stopped" and seen == 1, "the end of a fiber stops a loop, with nothing lost")
  stop:join()
  for data in client:datagrams { capacity = 8, on_error = error, stop = function() return true end } do
    promise(#data == 2, "a datagram is as long as it was sent")
  end
  for workers = 1, 2 do
    local asking = fiber.spawn(function()
      client:send("question")
      promise(client:receive_string() == "no question", "an answer is what the handler returns")
    end)
    reason = server:serve(function(data) return { "no ", data } end, { stop = asking, workers = workers })
    promise(reason == "stopped", "the end of a fiber stops a server")
    asking:join()
  end
  local fd <close> = server:release()
  promise(not server.is_open, "release closes the socket")
  local copy <close> = fd:dup() -- luacheck: ignore copy
  server:assign("v4", fd)
  local out, batch = ip.udp.batch.new(3, 16), ip.udp.batch.new(3, 16)
  for i = 1, 3 do out:set(i, { "entry ", ip.byte_span.append(tostring(i)) }) end
  out:set(3, { "=", out[3] })
  promise(client:send_many(out) == 3, "all entries are sent")
  promise(server:receive_many(batch) == 3, "all entries are received")
  promise(tostring(batch[3]) == "=entry 3", "an entry is what was sent")
  local span, address, port = batch:get(1)
  batch:set(1, span, address, port)
  promise(server:send_many(batch) == 3 and client:receive_many(batch) == 3, "a batch is echoed")
  batch:set(2, "nowhere", "127.0.0.1", 0)
  local sent_all, failed = pcall(server.send_many, server, batch, 2, 3)
  promise(not sent_all and (type(failed) == "string" or failed.sent == 0), "an error tells what was sent")
  if pcall(server.set_option, server, "receive_errors", true) then
    server:set_option("receive_packet_info", true)
    server:set_option("receive_offload", true)
    client:set_option("segment_size", 4)
    while server:try_receive(buffer) do end -- luacheck: ignore 542
    client:send_message("one two", { ecn = 1 })
    local n, info = server:receive_message(buffer:resize(32))
    promise(n == 7 or n == 4, "messages arrive")
    server:reply_message({ "an", "swer" }, info)
    server:send_to("x", "127.0.0.1", 1)
    pcall(server.receive, server, buffer)
    server:receive_error(buffer)
  end
  local gathering <close> = ip.udp.bind("127.0.0.1", 0, { coalesce = true, receive_timeout = 5 })
  local sink <close> = ip.udp.connect("127.0.0.1", gathering.local_port, { coalesce = true, receive_timeout = 5 })
  for i = 1, 3 do sink:send({ "kept ", tostring(i) }) end
  sink:flush()
  for i = 1, 3 do
    local kept, from, from_port = gathering:receive_string()
    promise(kept == "kept " .. i, "what is kept leaves in order")
    gathering:send_to(kept, from, from_port)
  end
  for i = 1, 3 do promise(sink:receive_string() == "kept " .. i, "what is read ahead is handed out in order") end
  gathering:send_to("left", "127.0.0.1", sink.local_port)
  do
    local asked = 0
    local listener <close> = ip.udp.listen("127.0.0.1", 0, { idle_timeout = 60, receive_timeout = 5, accept = function()
      asked = asked + 1
      return true
    end })
    local peer <close> = ip.udp.connect("127.0.0.1", listener.local_port, { receive_timeout = 5 })
    peer:send("first")
    local session = listener:accept()
    promise(session:receive_string() == "first" and asked == 1, "the first datagram of a peer begins its session")
    local waiting = fiber.spawn(function() return session:receive_string() end)
    fiber.yield()
    peer:send("second")
    promise(waiting:join() == "second", "a session receives what its peer sends")
    session:send_with(2, function(filled) filled:copy("ok") end)
    promise(peer:receive_string() == "ok", "a session sends to its peer")
  end
  server:set_option("broadcast", true)
  promise(server:get_option("broadcast"), "options stick")
  local queue, lock = fiber.queue(1), fiber.semaphore(1)
  local taker = fiber.spawn(function()
    local sum = 0
    for value in queue:values() do
      local guard <close> = lock:hold() -- luacheck: ignore guard
      sum = sum + value
    end
    return sum
  end)
  for i = 1, 9 do queue:put(i) end
  local none = fiber.semaphore(0)
  promise(not pcall(fiber.with_timeout, 0.001, none.acquire, none), "a deadline ends a wait")
  queue:close()
  promise(taker:join() == 45 and lock.permits == 1, "every value arrives once")
  local changed, seen_changes = fiber.condition(), 0
  do
    local group <close> = fiber.group()
    for i = 1, 2 do
      group:spawn(function()
        changed:wait()
        seen_changes = seen_changes + 1
      end).name = "watcher " .. i
    end
    fiber.yield()
    promise(changed:notify_all() == 2, "all are woken")
    group:join()
  end
  promise(seen_changes == 2 and #fiber.list() >= 1, "members of a group end")
  local filled, waiting = fiber.queue(), fiber.spawn(fiber.sleep, 60)
  for i = 1, 20 do filled:put(i) end
  promise(fiber.wait_any(waiting, filled) == filled, "what is ready is found")
  promise(fiber.wait_any { waiting, fiber.spawn(fiber.yield), server } ~= waiting, "what becomes ready is found")
  promise(#waiting:traceback() > 0, "a fiber tells where it is")
  waiting:interrupt()
  for count in fiber.every(0.001) do if count > 1 then break end end
end)
