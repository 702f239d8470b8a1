--- Wild sockets: any call in any state with any argument. What they do to each other does not matter, as long
--- as the process, the stable sockets and the accounts survive it.

local ip = require "ip"
local api = require "spec.fuzz.api"
local world = require "spec.fuzz.world"

local S = api.socket

local actions = {}

local addresses = { "127.0.0.1", "127.0.0.2", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1", "255.255.255.255",
  "239.1.2.3", "ff02::1%lo", "192.0.2.1", "fe80::1%1", "ff05::1%lo", "fec0::1%1", "::1%lo", "ff0e::1%99", "nonsense" }

-- Never the port of a stable socket: what a wild one sends is in no ledger.
local function port(r)
  local kind = r:int(1, 4)
  if kind == 1 then return 0 end
  if kind == 2 then return r:int(1, 1024) end
  local other = #world.wild > 0 and r:pick(world.wild)
  if other and other.is_open then return other.local_port end
  return 1
end

local function payload(r)
  return r:pick {
    "", "x", ("y"):rep(1000), ip.byte_span.new(20), { "a", ip.byte_span.append("b") }, ("z"):rep(66000),
  }
end

local calls = {}

function calls.open(r) return r:pick { "v4", "v6", ip.address.loopback_v4(), "v5" } end
function calls.bind(r) return r:pick(addresses), port(r) end
function calls.connect(r) return r:pick(addresses), port(r) end
function calls.disconnect() end
function calls.shutdown(r) return r:pick { "receive", "send", "both", "none" } end
function calls.cancel() end
function calls.close() end
function calls.flush() end
function calls.io_control(r) return r:pick { "bytes_readable", "other" } end
function calls.send(r) return payload(r), r:pick { 0, 0, ip.message_flag.confirm, 1 << 30 } end
function calls.send_to(r) return payload(r), r:pick(addresses), port(r) end
function calls.try_send(r) return payload(r) end
function calls.try_send_to(r) return payload(r), r:pick(addresses), port(r) end

function calls.send_with(r)
  local errs = r:one_in(4)
  return r:int(0, 2000), function(span)
    if errs then error("fuzz error: in fill") end
    span:fill(7)
  end
end

function calls.send_to_with(r)
  local sleeps = r:one_in(3)
  return r:int(0, 2000), function()
    if sleeps then api.fiber.sleep(0.001) end
  end, r:pick(addresses), port(r)
end

function calls.send_message(r)
  return payload(r), {
    address = r:pick(addresses), port = port(r), source = r:one_in(4) and r:pick(addresses) or nil,
    interface_index = r:one_in(4) and r:int(0, 3) or nil, hops = r:one_in(4) and r:int(0, 255) or nil,
    segment_size = r:one_in(4) and r:int(0, 100) or nil, ecn = r:one_in(4) and r:int(0, 4) or nil,
  }
end

function calls.reply_message(r)
  local address = ip.address.new("127.0.0.1")
  local own = r:one_in(2) and r:pick { "127.0.0.1", "127.0.0.2", "127.255.255.255", "0.0.0.0" } or nil
  return payload(r), { address = address, port = port(r), destination = address, local_address = own }
end

function calls.send_many(r)
  local batch = ip.udp.batch.new(r:int(1, 5))
  for i = 1, r:int(1, 5) do
    local info = r:one_in(3) and { hops = 300 } or nil
    pcall(batch.set, batch, i, r:pick { "", "abc" }, r:pick(addresses), port(r), info)
  end
  return batch, r:one_in(3) and r:int(0, 6) or nil, r:one_in(3) and r:int(0, 6) or nil
end

local function span(r)
  return ip.byte_span.new(r:pick { 0, 1, 100, 65535 })
end

local flags = { 0, 0, ip.message_flag.peek, ip.message_flag.more }

function calls.receive(r) return span(r), r:pick(flags) end
function calls.receive_from(r) return span(r), r:pick(flags) end
function calls.receive_string(r) return r:pick { 0, 10, 70000 }, r:pick(flags) end
function calls.try_receive(r) return span(r) end
function calls.try_receive_from(r) return span(r) end
function calls.receive_message(r) return span(r), {}, r:pick(flags) end
function calls.receive_many(r) return ip.udp.batch.new(r:int(1, 4)), r:pick(flags) end
function calls.try_receive_string(r) return calls.receive_string(r) end
function calls.try_receive_message(r) return span(r), r:one_in(2) and {} or nil, r:pick(flags) end
function calls.try_receive_many(r) return calls.receive_many(r) end
function calls.try_send_message(r) return calls.send_message(r) end
function calls.try_send_many(r) return calls.send_many(r) end
function calls.receive_error(r) return r:one_in(2) and span(r) or nil end

function calls.receive_loop(r)
  local stop = #world.handles > 0 and r:pick(world.handles) or nil
  return function() if r:one_in(4) then error("fuzz error: in the callback") end end, { stop = stop }
end

function calls.get_option(r)
  return r:one_in(10) and "no such option" or r:pick(api.options)
end

local values = { true, false, 0, 1, 255, 4096, -1, "lo", "", "want", "do", "239.1.2.3", "127.0.0.1", "no" }

function calls.set_option(r)
  local name = r:pick(api.options)
  if name == "busy_poll" or name == "debug" then name = "broadcast" end
  if name:find("group", 1, true) then return name, "239.1.2.3", r:pick { "lo", "127.0.0.1" } end
  return name, r:pick(values), r:one_in(4) and r:pick(values) or nil
end

-- Options by number: type, time to live, priority, one that does not exist, offload (which is refused), and a
-- multicast option of v6.
local raw_options = { { 1, 3 }, { 0, 2 }, { 1, 12 }, { 1, 9999 }, { 17, 104 }, { 41, 18 } }

function calls.set_raw_option(r)
  local option = r:pick(raw_options)
  return option[1], option[2], r:pick { 1, 0, -1, 6, 0xffffffff, "", "\1\0\0\0", ("x"):rep(100), true }
end

function calls.get_raw_option(r)
  local option = r:pick(raw_options)
  return option[1], option[2], r:pick { 0, 1, 4, 64, 65535, 65536 }
end

local names = {}
for name in pairs(calls) do names[#names + 1] = name end
table.sort(names)

function actions.wild_call(r)
  for _ = 1, r:int(1, 3) do
    local sock, name = world.wild_socket(r), r:pick(names)
    world.log("%s of a wild socket", name)
    world.try(name, S[name], sock, calls[name](r))
  end
end

-- Opens a socket with a table of options, in which anything may be wrong.
function actions.wild_options(r)
  local options = {}
  for _ = 1, r:int(0, 4) do
    local name = r:one_in(12) and "no such option" or r:pick(api.options)
    if name ~= "busy_poll" and name ~= "debug" then options[name] = r:pick(values) end
  end
  if r:one_in(4) then options.receive_timeout = r:pick { 0, 1, -1, "x" } end
  if r:one_in(6) then options.interface = r:pick { "lo", 1, true } end
  local ok, sock
  if r:one_in(2) then
    ok, sock = world.try("ip.udp.bind", api.udp.bind, r:pick(addresses), 0, options)
  else
    ok, sock = world.try("ip.udp.connect", api.udp.connect, r:pick(addresses), port(r), options)
  end
  if not ok then return end
  world.all_wild[sock] = true
  if r:one_in(2) then world.keep(world.holders, sock) else world.try("close", S.close, sock) end
end

function actions.wild_waits(r)
  local sock = world.open_wild(r)
  if not sock.is_open then return end
  if r:one_in(2) then sock.receive_timeout = r:pick { 0.001, 0.01, 0 } end
  world.try("receive_string", S.receive_string, sock)
end

function actions.wild_datagrams(r)
  local sock = world.wild_socket(r)
  if not sock.is_open then return end
  world.try("datagrams", function()
    for _ in S.datagrams(sock, { capacity = r:int(0, 2000) }) do
      if r:one_in(3) then break end
    end
  end)
end

function actions.wild_property(r)
  local sock, name = world.wild_socket(r), r:pick(api.properties.socket)
  world.try(name, api.get, "socket", sock, name)
  if tostring(sock) == "" then world.fault("a socket without text") end
end

function actions.wild_truncation(r)
  local sock, value = world.wild_socket(r), r:pick { "report", "raise", "never" }
  local before = sock.on_truncation
  local ok = pcall(function() sock.on_truncation = value end)
  if ok and value == "never" then world.fault("on_truncation") end -- a valid one may fail where the C stack is full
  if sock.on_truncation ~= (ok and value or before) then world.fault("on_truncation is not what was set") end
end

-- The socket is closed while others wait in it.
function actions.wild_close(r)
  if #world.wild == 0 then return end
  local sock = table.remove(world.wild, r:int(1, #world.wild))
  world.try("close", S.close, sock)
  if sock.is_open then world.fault("open after close") end
end

-- Sends to a port where nobody listens: the error comes back to a later call.
function actions.refused(r)
  local sock = world.open_wild(r)
  world.try("connect", S.connect, sock, "127.0.0.1", 1)
  if r:one_in(2) then world.try("set_option", S.set_option, sock, "receive_errors", true) end
  world.try("send", S.send, sock, "anybody?")
  world.try("receive_string", S.receive_string, sock)
  world.try("receive_error", S.receive_error, sock)
end

-- A flood through one socket: receives that yield for others in between.
function actions.echo(r)
  local sock = world.open_wild(r)
  if not sock.is_open or sock.local_port == 0 then return end
  local address = sock.family == "v4" and "127.0.0.1" or "::1"
  if r:one_in(2) then world.try("set_option", S.set_option, sock, "coalesce", true) end
  for _ = 1, r:int(1, 200) do
    if not world.try("send_to", S.send_to, sock, "echo", address, sock.local_port) then return end
  end
  for _ = 1, r:int(1, 200) do
    if not world.try("receive", S.receive, sock, ip.byte_span.new(10)) then return end
  end
end

return actions
