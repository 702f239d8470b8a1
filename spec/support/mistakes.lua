--- The mistakes that people make when they call the library, as source text, and what the library says to each.
--- spec/mistakes_spec.lua compares it with spec/expected/mistakes.txt.

local ip = require "ip"

local mistakes = {}

-- Wrong values for each kind of argument, as source text.
local wrong = {
  data = { "", "nil", "1", "true", "print", "{ 1 }", "{ text = 'x' }" },
  addr = { "", "nil", "1", "true", "{}", "''", "'localhost'", "'1.2.3'", "'1.2.3.4:53'", "'1.2.3.4%lo'", "'::1%nosuch'",
    "buf" },
  port = { "", "nil", "'53'", "-1", "65536", "1.5", "true", "{}" },
  buffer = { "", "nil", "1", "'text'", "{}", "sock" },
  batch = { "", "nil", "1", "{}", "buf" },
  flags = { "'peek'", "true", "-1", "1 << 40", "1.5", "ip.message_flag.confirm | ip.message_flag.peek" },
  seconds = { "", "nil", "'1'", "true", "0 / 0", "{}" },
  timeout = { "'1'", "true", "-1", "0 / 0", "{}" },
  fn = { "", "nil", "1", "'f'", "{}" },
  count = { "", "nil", "'1'", "-1", "1.5", "1 << 60", "true" },
  index = { "", "nil", "'1'", "0", "-1", "100", "1.5" },
  optional_index = { "'1'", "0", "-1", "100", "1.5" },
  byte = { "", "nil", "'a'", "-1", "256", "1.5" },
  bytes = { "", "nil", "1", "{}", "true" },
  optional_bytes = { "1", "{}", "true" },
  info = { "1", "'info'", "true" },
  required_info = { "", "nil", "1", "'info'", "{}", "{ address = 'localhost', port = 9 }", "{ address = '127.0.0.1' }",
    "{ address = '127.0.0.1', port = '9' }", "{ address = '127.0.0.1', port = 9, hops = 0 }",
    "{ address = '127.0.0.1', port = 9, ecn = 4 }", "{ address = '127.0.0.1', port = 9, segment_size = -1 }",
    "{ address = '127.0.0.1', port = 9, traffic_class = 1.5 }", "{ address = '127.0.0.1', port = 9, source = 1 }" },
  family = { "", "nil", "4", "'ipv4'", "'V4'", "true", "{}" },
  adopted_family = { "", "nil", "'ipv4'", "'V4'", "true", "{}" },
  flag = { "1", "'all'", "{}" },
  level = { "", "nil", "'SOL_SOCKET'", "1.5", "true" },
  raw_value = { "", "nil", "1.5", "true", "{}" },
  serve_config = { "1", "{ workers = 0 }", "{ workers = '2' }", "{ on_error = 1 }", "{ stop = true }",
    "{ timeout = 5 }" },
  listen_options = { "1", "{ max_sessions = 0 }", "{ idle_timeout = '5' }", "{ session_capacity = -1 }",
    "{ accept = 1 }", "{ reuseaddr = true }", "{ receive_timeout = '5' }" },
  side = { "", "nil", "1", "'rd'", "'read'", "true" },
  command = { "", "nil", "1", "'FIONREAD'" },
  option = { "", "nil", "1", "'reuseaddr'", "'SO_REUSEADDR'", "'SO_RCVBUF'", "'ttl'",
    "'IP_ADD_MEMBERSHIP'", "'nosuch'", "''" },
  text = { "", "nil", "1", "true", "{}" },
  options = { "1", "true", "'reuse_address'", "{ reuseaddr = true }", "{ reuse_address = 1 }",
    "{ receive_timeout = '5' }",
    "{ send_timeout = -1 }", "{ receive_buffer_size = '1M' }", "{ unicast_hops = 0 }", "{ [1] = 'reuse_address' }" },
  loop_config = { "1", "'stop'", "{ stop = true }", "{ buffer = 'text' }", "{ capacity = -1 }", "{ max_ready = 0 }",
    "{ timeout = 5 }", "{ buffer = buf, capacity = 1000 }", "{ on_error = true }" },
  descriptor = { "", "nil", "'0'", "-1", "1.5", "1 << 20", "{}", "sock" },
  events = { "1", "'read'", "''", "true" },
  signal = { "", "nil", "'nosuch'", "'int'", "'SIGKILL'", "1.5", "-1", "{}" },
  format = { "", "nil", "1", "'y'", "'i17'" },
  host = { "true", "{}", "1", "''" },
  item = { "", "nil" },
  capacity = { "'1'", "0", "-1", "1.5", "true", "1 << 70" },
  permits = { "", "nil", "'1'", "-1", "1.5", "true" },
  period = { "", "nil", "'1'", "0", "-1", "math.huge", "0 / 0" },
  source = { "", "nil", "'x'", "true", "-1", "1.5", "1 << 40", "{}", "{ queue, 'x' }", "{ condition }", "group" },
  service = { "true", "{}", "-1", "65536", "'no such service'" },
}

-- Each call, with the kind of each argument and a right value for it. `on` is what the method is called on.
local calls = {
  { "ip.udp.bind", "addr '127.0.0.1'", "port 0", "options nil" },
  { "ip.udp.connect", "addr '127.0.0.1'", "port 9", "options nil" },
  { "ip.udp.listen", "addr '127.0.0.1'", "port 0", "listen_options nil" },
  { "unopened:open", "family 'v4'" },
  { "unopened:bind", "addr '127.0.0.1'", "port 0" },
  { "unopened:connect", "addr '127.0.0.1'", "port 9" },
  { "sock:shutdown", "side 'both'" },
  { "sock:io_control", "command 'bytes_readable'" },
  { "sock:set_option", "option 'broadcast'", "value true" },
  { "sock:get_option", "option 'broadcast'" },
  { "sock:receive", "buffer buf", "flags 0" },
  { "sock:receive_from", "buffer buf", "flags 0" },
  { "sock:receive_string", "optional_index 10", "flags 0" },
  { "sock:receive_message", "buffer buf", "info {}", "flags 0" },
  { "sock:receive_many", "batch batch", "flags 0" },
  { "sock:receive_error", "buffer buf" },
  { "sock:try_receive", "buffer buf", "flags 0" },
  { "sock:try_receive_from", "buffer buf", "flags 0" },
  { "sock:try_receive_string", "optional_index 10", "flags 0" },
  { "sock:try_receive_message", "buffer buf", "info {}", "flags 0" },
  { "sock:try_receive_many", "batch batch", "flags 0" },
  { "connected:send", "data 'x'", "flags 0" },
  { "sock:send_to", "data 'x'", "addr '127.0.0.1'", "port 9", "flags 0" },
  { "connected:send_with", "count 1", "fn print" },
  { "sock:send_to_with", "count 1", "fn print", "addr '127.0.0.1'", "port 9" },
  { "sock:send_message", "data 'x'", "required_info {}", "flags 0" },
  { "sock:reply_message", "data 'x'", "required_info {}", "flags 0" },
  { "sock:send_many", "batch batch", "optional_index 1", "optional_index 1" },
  { "connected:try_send", "data 'x'", "flags 0" },
  { "sock:try_send_to", "data 'x'", "addr '127.0.0.1'", "port 9", "flags 0" },
  { "sock:try_send_message", "data 'x'", "required_info {}", "flags 0" },
  { "sock:try_send_many", "batch batch", "optional_index 1", "optional_index 1" },
  { "sock:datagrams", "loop_config {}" },
  { "sock:receive_loop", "fn print", "loop_config {}" },
  { "sock:serve", "fn print", "serve_config {}" },
  { "unopened:assign", "adopted_family 'v4'", "descriptor 0" },
  { "sock:set_raw_option", "level 1", "level 2", "raw_value 1" },
  { "sock:get_raw_option", "level 1", "level 2", "count 4" },
  { "ip.udp.batch.new", "count 1", "count 1" },
  { "batch:set", "index 1", "data 'x'", "addr '127.0.0.1'", "port 9", "info {}" },
  { "batch:get", "index 1" },
  { "batch:info", "index 1", "info {}" },
  { "batch:resize", "index 1", "index 1" },
  { "ip.udp.get_address_info", "host '::1'", "service 'domain'", "flags 0" },
  { "ip.udp.get_name_info", "addr '::1'", "port 53", "flags 0" },
  { "ip.interfaces", "flag true" },
  { "ip.address.new", "addr '::1'" },
  { "ip.address.parse", "text '::1'" },
  { "ip.address.from_bytes", "bytes '1234'" },
  { "address:with_scope_id", "count 1" },
  { "ip.tostring", "addr '::1'", "port 53" },
  { "ip.toendpoint", "text '1.2.3.4:53'" },
  { "ip.endpoint_key", "addr '::1'", "port 53" },
  { "ip.endpoint_from_key", "text '123456'" },
  { "ip.byte_span.new", "count 1", "count 1" },
  { "ip.byte_span.append", "optional_bytes 'x'" },
  { "buf:slice", "optional_index 1", "optional_index 1" },
  { "buf:resize", "count 1" },
  { "buf:copy", "bytes 'x'" },
  { "buf:append", "optional_bytes 'x'" },
  { "buf:fill", "byte 0" },
  { "buf:sub", "count 1", "optional_index 1" },
  { "buf:unpack", "format 'B'", "optional_index 1" },
  { "buf:pack", "index 1", "format 'B'", "byte 1" },
  { "buf:starts_with", "bytes 'x'" },
  { "buf:find", "bytes 'x'", "optional_index 1" },
  { "buf:find_first_of", "bytes 'x'", "optional_index 1" },
  { "buf:trimmed", "optional_bytes 'x'" },
  { "ip.fiber.spawn", "fn print" },
  { "ip.fiber.sleep", "seconds 0" },
  { "ip.fiber.with_timeout", "seconds 1", "fn print" },
  { "ip.fiber.shield", "fn print" },
  { "ip.fiber.on_error", "info print" },
  { "ip.fiber.wait_fd", "descriptor 0", "events 'r'" },
  { "ip.fiber.wait_signal", "signal 'SIGUSR1'" },
  { "ip.fiber.loop:step", "timeout 0" },
  { "ip.fiber.every", "period 1" },
  { "ip.fiber.queue", "capacity 1" },
  { "ip.fiber.semaphore", "permits 1" },
  { "ip.fiber.wait_any", "source queue" },
  { "queue:put", "item 1" },
  { "queue:try_put", "item 1" },
  { "group:spawn", "fn print" },
  { "ip.file_descriptor.new", "descriptor 0" },
  { "session:receive", "buffer buf", "flags 0" },
  { "session:receive_string", "optional_index 10", "flags 0" },
  { "session:try_receive", "buffer buf", "flags 0" },
  { "session:try_receive_string", "optional_index 10", "flags 0" },
  { "session:send", "data 'x'", "flags 0" },
  { "session:try_send", "data 'x'", "flags 0" },
  { "session:send_with", "count 1", "fn print" },
  { "ip.udp.get_address_v4_info", "host '127.0.0.1'", "service 'domain'", "flags 0" },
  { "ip.udp.get_address_v6_info", "host '::1'", "service 'domain'", "flags 0" },
  { "buf:ends_with", "bytes 'x'" },
  { "buf:rfind", "bytes 'x'", "optional_index 1" },
  { "buf:find_last_of", "bytes 'x'", "optional_index 1" },
}

-- Mistakes that are no wrong argument.
local others = {
  -- a dot for a colon
  "sock.send_to('x', '127.0.0.1', 9)", "sock.receive(buf)", "sock.close()", "sock.bind('127.0.0.1', 0)",
  "buf.resize(1)", "buf.sub(1)", "batch.set(1, 'x')", "address.to_v6()", "ip.fiber.loop.step()",
  "listener.accept()", "listener.dropped = 0", "return listener.sesions", "listener:close() listener:accept()",
  "sock.datagrams()", "sock.send_with(1, print)", "fiber.join()", "ip.error.EAGAIN.togeneric()",
  "session.send('x')", "session.receive(sock, buf)", "session.close()", "session.send_with(1, print)",
  "descriptor.dup()", "descriptor.close(1)",
  -- sessions and descriptors that are over
  "session:close() session:send('x')", "session:close() session:receive(buf)", "session:close() session:try_send('x')",
  "session:close() session:send_with(1, print)", "listener:close() session:send('x')",
  "listener:close() session:receive_string()", "listener:close() return listener.local_port",
  "descriptor:close() descriptor:dup()", "descriptor:close() unopened:assign('v4', descriptor)",
  "descriptor:close() ip.fiber.wait_fd(descriptor, 'r')", "descriptor:close() ip.fiber.wait_any(descriptor)",
  "ip.fiber.spawn(descriptor.close, descriptor) ip.fiber.wait_fd(descriptor, 'r')",
  "unopened:assign('v6', descriptor)", "unopened:assign(sock.native_handle)",
  -- text that is none
  "ip.toendpoint('127.0.0.1')", "ip.toendpoint('localhost:53')", "ip.toendpoint('::1:53')",
  "ip.toendpoint('1.2.3.4:080')",
  "ip.toendpoint('1.2.3.4:65536')", "ip.toendpoint('[::1]')", "ip.toendpoint('[1.2.3.4]:53')", "ip.toendpoint('')",
  "ip.address.from_bytes('123')", "ip.endpoint_from_key('12345')", "ip.address.new('[::1]:53')",
  "ip.address.new('fe80:0:0:0:1')", "ip.address.new('1.2.3.4 ')", "ip.address.new('256.1.1.1')",
  "assert(ip.address.parse('localhost'))",
  "ip.udp.get_address_info('no such host')", "ip.udp.get_address_info('1.2.3.4:53')",
  "ip.udp.get_address_info(nil, nil)", "ip.udp.get_name_info('192.0.2.1', 9, ip.address_info_flag.name_required)",
  -- fields of info
  "sock:send_message('x', { address = '127.0.0.1', port = 9, interface_index = 'nosuch' })",
  "sock:send_message('x', { address = '127.0.0.1', port = 9, interface_index = 12345 })",
  "sock:send_message('x', { address = '127.0.0.1', port = 9, interface_index = -1 })",
  "sock:send_message('x', { address = '127.0.0.1', port = 9, source = '::1' })",
  "sock:send_message('x', { address = '127.0.0.1', port = 9, source = '192.0.2.1' })",
  "sock:send_message('x', { address = 'fe80::1%lo', port = 9 })",
  "batch:set(1, 'x', '127.0.0.1', 9, { hops = 0 }) sock:send_many(batch)", "batch:set(1, ('x'):rep(100))",
  "batch:set(1, 'x') sock:send_many(batch)",
  "batch:set(1, 'x', '127.0.0.1', 9) batch:set(2, 'x', '::1', 9) sock:send_many(batch)", "batch:set(1, 'x', nil, 9)",
  -- arguments in another order
  "sock:send_to('127.0.0.1', 9, 'x')", "sock:send_to('x', 9, '127.0.0.1')", "ip.udp.bind(53, '127.0.0.1')",
  "sock:receive(0, buf)", "sock:set_option(true, 'broadcast')", "sock:send_to(1, 'localhost', 9)",
  "sock:send_to(buf)", "sock:send_message(buf)", "sock:send_message(1, 2)", "ip.fiber.with_timeout(print, 1)",
  "sock:send_message({ address = '127.0.0.1', port = 9 }, 'x')", "batch:set('x', 1)",
  -- sockets that are not open
  "unopened:receive(buf)", "unopened:send('x')", "unopened:send_to('x', '127.0.0.1', 9)",
  "unopened:set_option('broadcast', true)",
  "unopened:datagrams()", "unopened:receive_many(batch)", "unopened:send_many(batch)", "unopened:send_with(1, print)",
  "return unopened.local_port", "return unopened.family", "unopened:shutdown('both')", "unopened:cancel()",
  "unopened:flush()",
  "closed:receive(buf)", "closed:send_to('x', '127.0.0.1', 9)", "closed:try_receive(buf)",
  "return closed.local_address",
  "closed:receive_loop(print)", "closed:receive_error()", "closed:release()",
  -- the state of a socket
  "sock:open('v4')", "sock:bind('127.0.0.1', 0)", "sock:send('x')", "sock:send_to('x', '127.0.0.1', 0)",
  "sock:connect('127.0.0.1', 0)", "sock:connect('255.255.255.255', 9)", "return sock.remote_port",
  "sock:shutdown('both')",
  "sock:send_to(('x'):rep(65508), '127.0.0.1', 9)",
  "sock:send_to('x', '255.255.255.255', 9)", "ip.udp.bind('192.0.2.1', 0)", "ip.udp.bind('127.0.0.1', sock.local_port)",
  "ip.udp.bind('127.0.0.1', 0, { local_port = 9 })", "sock:send_many(batch)", "sock:receive(buf, ip.message_flag.more)",
  "sock:send_to('x', '127.0.0.1', 9, ip.message_flag.peek)", "connected:send_message('x', { port = 9 })",
  -- the other family
  "sock:send_to('x', '::1', 9)", "sock:connect('::1', 9)", "unopened:open('v4') unopened:bind('::1', 0)",
  "six:send_to('x', '127.0.0.1', 9)", "sock:set_option('v6_only', true)",
  "sock:set_option('join_multicast_group', 'ff02::1')",
  "address.is_link_local()", "return ip.address.new('1.2.3.4').scope_id", "ip.address.new('1.2.3.4'):with_scope_id(1)",
  "ip.address.new('::1'):to_v4()",
  -- options
  "sock:set_option('reuse_address', 1)", "sock:set_option('reuse_address')",
  "sock:set_option('receive_buffer_size', '1M')",
  "sock:set_option('receive_buffer_size', -1)", "sock:set_option('unicast_hops', 256)",
  "sock:set_option('traffic_class', true)",
  "sock:set_option('mtu', 1500)", "sock:get_option('join_multicast_group')",
  "sock:set_option('multicast_interface', 'nosuch')",
  "sock:set_option('join_multicast_group', '127.0.0.1')", "sock:set_option('join_multicast_group', 'localhost')",
  "sock:set_option('leave_multicast_group', '224.0.0.5')", "sock:set_option('bind_to_device', 'nosuch')",
  "sock:set_option('path_mtu_discovery', 'yes')",
  "sock:set_raw_option(1, 99999, 1)", "sock:get_raw_option(1, 99999, 4)", "sock:set_option('max_pacing_rate', -1)",
  "sock:set_option('join_multicast_group', '224.0.0.5', 'nosuch')", "sock:set_option('multicast_interface', '::1')",
  "sock:set_option('join_source_group', '232.1.1.1', '::1')", "sock:set_option('join_multicast_group', 5)",
  "six:set_option('join_multicast_group', '224.0.0.5')", "six:set_option('multicast_hops', -5)",
  "sock:set_option('coalesce', 1)", "sock:set_option('unicast_hops', '64')", "sock:get_option('v6_only')",
  "ip.udp.bind('127.0.0.1', 0, { join_multicast_group = 'ff02::1' })",
  "ip.udp.bind('127.0.0.1', 0, { v6_only = true })",
  "ip.udp.bind('127.0.0.1', 0, { on_truncation = 'x' })", "ip.udp.bind('127.0.0.1', 0, { bind_to_device = 'nosuch' })",
  "ip.udp.bind('127.0.0.1', 0, { mtu = 5 })", "ip.udp.connect('127.0.0.1', 0)",
  "ip.udp.bind('::1', 0, { unicast_hops = 256 })",
  -- properties
  "session.receive_timeout = '5'", "session.remote_port = 5", "return session.peer", "listener.receive_timeout = 1",
  "return sock[1]", "sock[1] = 2", "return batch[3]", "return batch[0]", "batch[1]:resize(1)", "return buf[9]",
  "sock.send_timeout = 0 / 0",
  "condition.name = 'x'", "descriptor.fd = 1", "return descriptor.number", "return ip.udp.message_flag.peek",
  "sock.receive_timeout = '5'", "sock.receive_timeout = -1", "sock.local_port = 53", "sock.timeout = 5",
  "return sock.timeout",
  "return sock.recieve", "sock.send = print", "buf.length = 5", "return buf.length", "buf[0] = 1", "buf[1] = 256",
  "buf[1] = 'a'",
  "buf[1000] = 1", "return batch.size", "batch.count = 100", "batch.count = '1'", "batch.max_ready = 0",
  "sock.on_truncation = 'error'", "address.is_v4 = true",
  "return address.ip", "fiber.name = 1", "fiber.name = nil", "queue.capacity = 2", "return queue.size",
  "return semaphore.count", "group.size = 1",
  "return ip.fiber.loop.fd", "ip.fiber.loop.spin = 'x'",
  -- names
  "return ip.error.ECONREFUSED", "return ip.message_flag.peak", "return ip.address_info_flag.pasive",
  "return ip.error.EAGAIN .. nil", "return ip.error[true]", "return ip.message_flag[1]", "return ip.error.EAGAIN.nme",
  "return address + 1", "return address < 1", "return #sock", "sock()",
  -- fibers
  "ip.fiber.run(function() fiber:join() end, 1)", "done:join()", "done:detach()", "ip.fiber.run(1)",
  "table.sort({ 1, 2 }, function() ip.fiber.sleep(1) end)", "ip.fiber.wait_fd(1000000)",
  "ip.fiber.with_timeout(0, ip.fiber.sleep, 1)",
  -- waiting for each other
  "queue.put(1)", "queue.get(condition)", "queue:close() queue:put(1)", "return queue:try_get()",
  "ip.fiber.with_timeout(0, queue.get, queue)", "table.sort({ 1, 2 }, function() queue:get() end)",
  "ip.fiber.wait_any(ip.fiber.current())", "ip.fiber.wait_any(queue, 1000)", "ip.fiber.wait_fd(1000, 'r')",
  "ip.fiber.wait_any(queue, condition)",
  "semaphore.acquire()", "ip.fiber.with_timeout(0, ip.fiber.semaphore(0).hold, ip.fiber.semaphore(0))",
  "condition.wait()", "condition.notify_one(queue)", "semaphore.hold()", "semaphore.try_acquire(1)", "queue.values()",
  "fiber.traceback()", "listener.sessions()", "listener.try_accept()", "group.join()", "sock.disconnect()",
  "batch.clear()",
  "group:interrupt() group:spawn(print)", "group:spawn(function() group:join() end) group:join()",
}

-- What the calls work on, made anew for each.
local function environment()
  local sock = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 0, send_timeout = 0 })
  local closed = ip.udp.bind("127.0.0.1", 0)
  closed:close()
  local done = ip.fiber.spawn(function() end)
  done:join()
  local six = ip.udp.socket.new()
  six:open("v6")
  six:set_option("v6_only", true)
  local listener = ip.udp.listen("127.0.0.1", 0)
  local peer = ip.udp.connect("127.0.0.1", listener.local_port)
  peer:send("x")
  local session = listener:accept()
  session:receive_string()
  session.receive_timeout = 0
  return setmetatable({
    ip = ip, sock = sock, closed = closed, unopened = ip.udp.socket.new(), six = six, done = done,
    connected = ip.udp.connect("127.0.0.1", sock.local_port, { receive_timeout = 0 }),
    buf = ip.byte_span.new(8), batch = ip.udp.batch.new(2, 8), address = ip.address.new("::1"),
    fiber = done, queue = ip.fiber.queue(1), condition = ip.fiber.condition(), semaphore = ip.fiber.semaphore(1),
    group = ip.fiber.group(), listener = listener,
    session = session, peer = peer, descriptor = ip.udp.bind("127.0.0.1", 0):release(),
  }, { __index = _G }), { sock.local_port, peer.local_port }
end

local function close(env)
  local names = { "sock", "connected", "six", "unopened", "listener", "peer", "descriptor" }
  for _, name in ipairs(names) do env[name]:close() end
end

-- What the library says to the source text; nil when it says nothing.
local function answer_to(source)
  local env, ports = environment()
  local fn = assert(load(source, "=program", "t", env))
  local ok, err = pcall(fn)
  close(env)
  if ok then return nil end
  local text = tostring(err):gsub("%d+", function(number)
    return (tonumber(number) == ports[1] or tonumber(number) == ports[2]) and "PORT" or nil
  end)
  return (text:gsub("assign '%d%d?'", "assign 'NUMBER'"))
end

local function call_with(call, position, value)
  local arguments = {}
  for i = 2, #call do
    local right = call[i]:match("^%S+ (.*)$")
    arguments[i - 1] = i - 1 == position and value or right
  end
  while position < #arguments do table.remove(arguments) end
  if arguments[#arguments] == "" then table.remove(arguments) end
  return call[1] .. "(" .. table.concat(arguments, ", ") .. ")"
end

-- All mistakes as source text, in order.
local function sources()
  local list = {}
  for _, call in ipairs(calls) do
    for i = 2, #call do
      local kind = call[i]:match("^%S+")
      for _, value in ipairs(wrong[kind] or {}) do list[#list + 1] = call_with(call, i - 1, value) end
    end
  end
  return table.move(others, 1, #others, #list + 1, list)
end

--- Every mistake and what the library says to it, as text. A call that is no mistake is left out.
---@return string
function mistakes.text()
  local lines, seen = {}, {}
  for _, source in ipairs(sources()) do
    local answer = not seen[source] and answer_to(source)
    seen[source] = true
    if answer then lines[#lines + 1] = source .. "\n    " .. answer end
  end
  return table.concat(lines, "\n") .. "\n"
end

return mistakes
