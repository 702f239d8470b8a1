--- An SNTP server (RFC 4330, a subset of NTP, RFC 5905): serves the time of this machine's clock.
--- usage: lua5.4 sntp_server.lua [--address ADDRESS] [--port PORT] [--stratum N]

package.path = (arg[0]:match("^.*/") or "./") .. "?.lua;" .. package.path

local byte_span = require "byte_span"
local command_line = require "command_line"
local ip = require "ip"

local options = command_line.new {
  usage = "sntp_server.lua [options]",
  about = [[
Answers SNTP and NTP clients with the time of this machine's clock, until Ctrl-C. The clock itself
is taken as it is. Answers leave from the address that was asked, also with --address 0.0.0.0.]],
  options = {
    { name = "address", value = "ADDRESS", read = ip.address.parse, default = "127.0.0.1",
      help = "the v4 or v6 address to listen on" },
    { name = "port", value = "PORT", read = command_line.port, default = 12300,
      help = "the port to listen on; with 0 the system chooses one" },
    { name = "stratum", value = "N", read = command_line.integer(1, 15), default = 10,
      help = "how far from a reference clock to claim to be" },
  },
}:parse(arg)

-- leap, version and mode; stratum; poll; precision; root delay; root dispersion; reference id; then the
-- timestamps reference, originate (the client's own transmit), receive, transmit
local PACKET = ">B B i1 i1 I4 I4 c4 I8 I8 I8 I8"
local PACKET_SIZE = string.packsize(PACKET)
local LARGEST_QUERY = 1024 -- extension fields and a digest may follow, and are ignored

local CLIENT, SERVER = 3, 4 -- modes
local PRECISION = -20 -- 2^-20 s, about a microsecond
local ROOT_DISPERSION = 0x10000 // 100 -- 0.01 s in 16.16 fixed point
local REFERENCE = options.stratum == 1 and "LOCL" or "\127\127\1\1" -- an undisciplined local clock

local SECONDS_1900_TO_1970 = 2208988800
local NANOSECONDS = 1000000000

-- Returns an NTP timestamp: seconds since 1900 modulo 2^32, and a fraction of 32 bits.
local function ntp_time(nanoseconds)
  local seconds = nanoseconds // NANOSECONDS + SECONDS_1900_TO_1970
  local fraction = (nanoseconds % NANOSECONDS << 32) // NANOSECONDS
  return seconds << 32 | fraction
end

-- Returns the first byte, poll interval and transmit timestamp of a client's query; nil for any other
-- datagram. An answer is never answered: otherwise two servers might exchange answers forever.
local function parse(query, truncated)
  if truncated or #query < PACKET_SIZE or #query % 4 ~= 0 then return nil end
  local first, _, poll, _, _, _, _, _, _, _, transmit = query:unpack(PACKET)
  local version, mode = first >> 3 & 7, first & 7
  if mode ~= CLIENT or version < 1 or version > 4 then return nil end
  return version, poll, transmit
end

-- `info.timestamp` is the time at which the system received the query, no matter how long it then waited for
-- this program. The clock may have been set back since, but an answer must not leave before its query
-- arrived.
local function serve(sock, query, info, reply)
  while true do
    local n = sock:receive_message(query:resize(query.capacity), info)
    local version, poll, originate = parse(query:resize(n), info.truncated)
    if version then
      local now = ip.fiber.time()
      local received = ntp_time(math.min(info.timestamp or now, now))
      reply:pack(1, PACKET, version << 3 | SERVER, options.stratum, poll, PRECISION, 0, ROOT_DISPERSION, REFERENCE,
        received, originate, received, ntp_time(now))
      sock:reply_message(reply, info)
    end
  end
end

-- An error reported by the system concerns one datagram or one peer. Any other error is a mistake in this
-- program.
local function is_passing(err)
  if type(err) ~= "userdata" or err.category ~= "system" then return false end
  return err ~= ip.error.EBADF and err ~= ip.error.ECANCELED
end

local function serve_forever(sock)
  local query, info, reply = byte_span.new(LARGEST_QUERY), {}, byte_span.new(PACKET_SIZE)
  local reported
  while true do
    local _, err = pcall(serve, sock, query, info, reply)
    if not is_passing(err) then error(err, 0) end
    if err ~= reported then io.stderr:write("sntp_server.lua: ", tostring(err), "\n") end
    reported = err -- a series of equal errors is reported once
    ip.fiber.yield() -- an endless series of errors must not starve other fibers
  end
end

local function listen()
  local ok, result = pcall(ip.udp.bind, options.address, options.port, {
    receive_packet_info = true,
    receive_timestamp = true,
  })
  if ok then return result end
  local endpoint = ip.tostring(options.address, options.port)
  io.stderr:write(("sntp_server.lua: cannot listen on %s: %s\n"):format(endpoint, result))
  os.exit(1, true)
end

command_line.run(function()
  local sock <close> = listen()
  print("listening on " .. ip.tostring(sock.local_address, sock.local_port))
  io.stdout:flush()
  ip.fiber.run(serve_forever, sock)
end)
