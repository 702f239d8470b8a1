--- ip.udp: the socket class and its shortcuts.

local core = require("ip.core")
local check = require("ip.check")
local fill = require("ip.udp_fill")
local listen = require("ip.udp_listen")
local loop = require("ip.udp_loop")
local loop_config = require("ip.udp_loop_config")
local serve = require("ip.udp_serve")
local options_of = require("ip.udp_options")

require("ip.core").own_file()

---@class ip.udp.address_info
---@field address ip.address
---@field port integer
---@field canonical_name string? with the flag canonical_name

---@class ip.udp.name_info
---@field host_name string the address as text if it has no name
---@field service_name string the port as text if it has no name

---@alias ip.udp.look_up fun(host: ip.addr?, service: string|integer|nil, flags: integer?): ip.udp.address_info[]

local udp = {
  ---@type ip.udp.look_up suspends; the addresses of a host and the port of a service
  get_address_info = core.get_address_info,
  ---@type ip.udp.look_up suspends; v4 addresses only
  get_address_v4_info = core.get_address_v4_info,
  ---@type ip.udp.look_up suspends; v6 addresses only
  get_address_v6_info = core.get_address_v6_info,
  ---@type fun(address: ip.addr, port: integer, flags: integer?): ip.udp.name_info[] suspends; names of an endpoint
  get_name_info = core.get_name_info,
  socket = core.socket,
  batch = core.batch,
  --- The largest payload in an Ethernet frame: 1500 bytes without the headers of IP (20) and UDP (8).
  default_capacity = loop_config.default_capacity,
}

-- Adds the Lua methods to the class, once. Afterwards the class cannot be changed.
if core.add_methods then
  core.add_methods {
    datagrams = loop.datagrams,
    receive_loop = loop.receive_loop,
    serve = serve.serve,
    send_with = fill.send_with,
    send_to_with = fill.send_to_with,
  }
  core.add_methods = nil
  core.add_session_methods { send_with = fill.session_send_with }
  core.add_session_methods = nil
end

local no_options = {}

-- The options that the shortcuts use themselves.
local only_groups = "the address is no multicast group"
local bind_options = { interface = only_groups, source = only_groups }
local group_options = { interface = true, source = true }
local connect_options = { local_address = true, local_port = true }

local function is_group(addr)
  return addr.is_multicast or addr.is_v4_mapped and addr:to_v4().is_multicast
end

-- Link-local and interface-local v6 groups are different groups on each interface: adds the interface as
-- scope.
local function scoped(group, interface)
  local ambiguous = group.is_v6 and (group.is_multicast_link_local or group.is_multicast_node_local)
  if interface == 0 or not ambiguous or group.scope_id ~= 0 then return group end
  return group:with_scope_id(interface)
end

local function join(sock, group, source, interface)
  if source ~= nil then
    sock:set_option("join_source_group", group, source, interface)
  else
    sock:set_option("join_multicast_group", group, interface)
  end
end

-- `call`: the public function, for errors.
local function bind_group(call, sock, group, port, options)
  options = options_of.read(call, options, group_options)
  local interface, source = options.interface, options.source
  if interface ~= nil then interface = options_of.named(call, "interface", core.interface_index, interface) end
  if source ~= nil then source = options_of.named(call, "source", check.address, 1, call, source) end
  sock:open(group)
  options_of.set(call, sock, options)
  group = scoped(group, interface or 0)
  sock:bind(group, port)
  join(sock, group, source, interface)
end

local function bind_as(call, sock, addr, port, options)
  if is_group(addr) then return bind_group(call, sock, addr, port, options) end
  options = options_of.read(call, options, bind_options)
  sock:open(addr)
  options_of.set(call, sock, options)
  sock:bind(addr, port)
end

local function bind(...)
  bind_as("bind", ...)
end

local function listen_on(sock, addr, port, options)
  bind_as("listen", sock, addr, port, options)
  listen.prepare(sock, addr)
end

local function connect(sock, addr, port, options)
  options = options_of.read("connect", options, connect_options)
  local from, from_port = options.local_address, options.local_port
  if from ~= nil then from = options_of.named("connect", "local_address", check.address, 1, "connect", from) end
  if from_port ~= nil then
    options_of.named("connect", "local_port", check.integer, 1, "connect", from_port, 0, 65535)
  end
  sock:open(addr)
  options_of.set("connect", sock, options)
  if from ~= nil or from_port ~= nil then
    local any = addr.is_v6 and core.address.any_v6 or core.address.any_v4
    sock:bind(from or any(), from_port or 0)
  end
  sock:connect(addr, port)
end

-- Returns a new socket on which `prepare` has succeeded. Closes the socket if `prepare` fails.
local function build(prepare, addr, port, options)
  local sock = core.socket.new()
  local ok, err = pcall(prepare, sock, addr, port, options or no_options)
  if ok then return sock end
  sock:close()
  error(err, 0)
end

--- Opens a socket, sets the options in the order of docs/reference/options.md, and binds it. Also joins a
--- multicast group, with the options `interface` (name, index or v4 address) and `source` (addr).
---@param addr ip.addr
---@param port integer
---@param options ip.udp.options?
---@return ip.udp.socket
function udp.bind(addr, port, options)
  addr = check.address(1, "bind", addr)
  if options ~= nil then check.type(3, "bind", "table", options) end
  local sock = build(bind, addr, port, options)
  return sock
end

--- Opens a socket as `bind` does, with a session for each peer that sends to it.
---@param addr ip.addr
---@param port integer
---@param options ip.udp.listen_options?
---@return ip.udp.listener
function udp.listen(addr, port, options)
  addr = check.address(1, "listen", addr)
  port = check.integer(2, "listen", port, 0, 65535)
  if options ~= nil then check.type(3, "listen", "table", options) end
  options = options or no_options
  local sock = build(listen_on, addr, port, listen.split(options))
  local listener = listen.make(sock, addr, options)
  return listener
end

--- Opens a socket, sets the options in the order of docs/reference/options.md, and connects it.
---@param addr ip.addr
---@param port integer
---@param options ip.udp.options?
---@return ip.udp.socket
function udp.connect(addr, port, options)
  addr = check.address(1, "connect", addr)
  if options ~= nil then check.type(3, "connect", "table", options) end
  local sock = build(connect, addr, port, options)
  return sock
end

return udp
