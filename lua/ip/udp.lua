--- ip.udp: the socket class and its shortcuts.

local core = require("ip.core")
local check = require("ip.check")
local fill = require("ip.udp_fill")
local listen = require("ip.udp_listen")
local loop = require("ip.udp_loop")

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
  ---@type fun(address: ip.addr, port: integer): ip.udp.name_info[] suspends; names of an endpoint
  get_name_info = core.get_name_info,
  socket = core.socket,
  batch = core.batch,
  --- The largest payload in an Ethernet frame: 1500 bytes without the headers of IP (20) and UDP (8).
  default_capacity = loop.default_capacity,
}

-- Adds the Lua methods to the class, once. Afterwards the class cannot be changed.
if core.add_methods then
  core.add_methods {
    datagrams = loop.datagrams,
    receive_loop = loop.receive_loop,
    send_with = fill.send_with,
    send_to_with = fill.send_to_with,
  }
  core.add_methods = nil
  core.add_session_methods { send_with = fill.session_send_with }
  core.add_session_methods = nil
end

-- Timeouts are properties; all other options are socket options. `own` names the options that the shortcut
-- itself uses.
local function configure(sock, options, own)
  for name, value in pairs(options) do
    if name == "receive_timeout" or name == "send_timeout" then
      sock[name] = value
    elseif not own[name] then
      sock:set_option(name, value)
    end
  end
end

local no_options = {}
local group_options = { interface = true, source = true }
local connect_options = { local_address = true, local_port = true }

local function is_group(addr)
  return addr.is_multicast or addr.is_v4_mapped and addr:to_v4().is_multicast
end

-- Link-local and interface-local v6 groups are different groups on each interface: adds the interface as
-- scope.
local function scoped(group, interface)
  local ambiguous = group.is_v6 and (group.is_multicast_link_local or group.is_multicast_node_local)
  if interface == nil or not ambiguous or group.scope_id ~= 0 then return group end
  return group:with_scope_id(core.interface_index(interface))
end

local function join(sock, group, source, interface)
  if source ~= nil then
    sock:set_option("join_source_group", group, source, interface)
  else
    sock:set_option("join_multicast_group", group, interface)
  end
end

local function bind_group(sock, group, port, options)
  sock:open(group)
  configure(sock, options, group_options)
  group = scoped(group, options.interface)
  sock:bind(group, port)
  join(sock, group, options.source, options.interface)
end

local function bind(sock, addr, port, options)
  if is_group(addr) then return bind_group(sock, addr, port, options) end
  sock:open(addr)
  configure(sock, options, no_options)
  sock:bind(addr, port)
end

local function bind_all(sock, addr, port, options)
  bind(sock, addr, port, options)
  listen.prepare(sock, addr)
end

local function connect(sock, addr, port, options)
  sock:open(addr)
  configure(sock, options, connect_options)
  local from, from_port = options.local_address, options.local_port
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
  check.raise(err, 3)
end

--- Opens a socket, sets the options (option name -> value, receive_timeout, send_timeout) and binds it. Also
--- joins a multicast group, with the options `interface` (name, index or v4 address) and `source` (addr).
---@param addr ip.addr
---@param port integer
---@param options table?
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
---@param options table? those of bind, and ip.udp.listen_options
---@return ip.udp.listener
function udp.listen(addr, port, options)
  addr = check.address(1, "listen", addr)
  if options ~= nil then check.type(3, "listen", "table", options) end
  options = options or no_options
  local of_socket, problem = listen.split(options)
  if of_socket == nil then check.fail(3, "listen", problem, 2) end
  local sock = build(bind_all, addr, port, of_socket)
  local listener = listen.make(sock, addr, options)
  return listener
end

--- Opens a socket, sets the options (also local_address and local_port) and connects it.
---@param addr ip.addr
---@param port integer
---@param options table?
---@return ip.udp.socket
function udp.connect(addr, port, options)
  addr = check.address(1, "connect", addr)
  if options ~= nil then check.type(3, "connect", "table", options) end
  local sock = build(connect, addr, port, options)
  return sock
end

return udp
