--- ip.udp.listen: one socket, and a session for each of its peers.

local core = require("ip.core")
local check = require("ip.check")
local new_listener = core.new_listener

require("ip.core").own_file()

---@class ip.udp.listen_options: ip.udp.options
---@field max_sessions integer? sessions at a time; default 10,000
---@field session_capacity integer? datagrams that a session keeps until they are received; default 64
---@field idle_timeout number? seconds after which a silent session ends; default: never
---@field accept (fun(address: ip.address, port: integer, data: string): boolean)? decides about each new peer

---@alias ip.udp.session.receive_string
---| fun(self: ip.udp.session, size: integer?, flags: integer?): string, ip.address, integer, boolean

---@class ip.udp.session
---@field is_open boolean
---@field remote_address ip.address
---@field remote_port integer
---@field dropped integer datagrams for which the session had no capacity
---@field receive_timeout number? seconds
---@field send_timeout number? seconds
---@field receive fun(self: ip.udp.session, buf: byte_span, flags: integer?): integer, boolean suspends
---@field receive_string ip.udp.session.receive_string suspends
---@field try_receive fun(self: ip.udp.session, buf: byte_span, flags: integer?): integer?, boolean|ip.error
---@field try_receive_string ip.udp.session.receive_string nil and an error where receive_string would wait
---@field send fun(self: ip.udp.session, data: ip.data, flags: integer?): integer suspends
---@field try_send fun(self: ip.udp.session, data: ip.data, flags: integer?): integer?, ip.error?
---@field send_with fun(self: ip.udp.session, length: integer, fill: fun(span: byte_span)): integer suspends
---@field close fun(self: ip.udp.session)

---@class ip.udp.listener
---@field is_open boolean
---@field local_address ip.address
---@field local_port integer
---@field dropped integer datagrams of peers that could get no session
---@field accept fun(self: ip.udp.listener): ip.udp.session suspends
---@field try_accept fun(self: ip.udp.listener): ip.udp.session?, ip.error?
---@field sessions fun(self: ip.udp.listener): fun(): ip.udp.session? for `for`; the function suspends
---@field close fun(self: ip.udp.listener)

local udp_listen = {}

local DEFAULT_MAX_SESSIONS = 10000
local DEFAULT_SESSION_CAPACITY = 64

local function is_count(value)
  local integer = type(value) == "number" and math.tointeger(value)
  return integer and integer >= 1
end

-- The options of a listener: a test, and what it expects.
local own_options = {
  max_sessions = { is_count, "integer of at least 1" },
  session_capacity = { is_count, "integer of at least 1" },
  idle_timeout = { function(value) return type(value) == "number" and value > 0 end, "positive number of seconds" },
  accept = { function(value) return type(value) == "function" end, "function" },
}

--- Checks the options of a listener; returns those of its socket.
function udp_listen.split(options)
  local rest = {}
  for name, value in pairs(options) do
    local own = own_options[name]
    if own == nil then
      rest[name] = value
    elseif not own[1](value) then
      check.fail(3, "listen", ("option '%s': %s expected, got %s"):format(name, own[2], core.value_text(value)))
    end
  end
  return rest
end

--- Where a socket is bound to all addresses, the system says to which of them a datagram came: sessions answer
--- from it.
function udp_listen.prepare(sock, addr)
  if addr.is_unspecified then sock:set_option("receive_packet_info", true) end
end

--- Moves a bound socket into a new listener.
function udp_listen.make(sock, addr, options)
  return new_listener(sock, options.max_sessions or DEFAULT_MAX_SESSIONS,
    options.session_capacity or DEFAULT_SESSION_CAPACITY, options.idle_timeout, addr.is_unspecified, options.accept)
end

return udp_listen
