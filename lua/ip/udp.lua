--- ip.udp: the socket class and its short cuts.

local core = require("ip.core")
local check = require("ip.check")

local udp = { socket = core.socket, batch = core.batch, default_capacity = 1472 }

-- Timeouts are properties; the rest are socket options. `own` names what the short cut itself uses.
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
local bind_options = {}
local connect_options = { local_address = true, local_port = true }

local function bind(sock, addr, port, options)
  sock:open(addr)
  configure(sock, options, bind_options)
  sock:bind(addr, port)
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

-- A new socket that `prepare` has made ready; closed again when that fails.
local function build(prepare, addr, port, options)
  local sock = core.socket.new()
  local ok, err = pcall(prepare, sock, addr, port, options or no_options)
  if ok then return sock end
  sock:close()
  check.raise(err, 3)
end

--- Opens a socket, sets the options (option name -> value, receive_timeout, send_timeout) and binds it.
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
