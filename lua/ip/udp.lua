--- ip.udp: the socket class and its short cuts.

local core = require("ip.core")

local udp = { socket = core.socket }

local check_type = require("ip.check").type

-- Sets the options of a short cut. Timeouts are properties; the rest are socket options. `skip` names what the
-- short cut itself uses.
local function configure(sock, options, skip)
  for name, value in pairs(options) do
    if name == "receive_timeout" or name == "send_timeout" then
      sock[name] = value
    elseif not skip[name] then
      sock:set_option(name, value)
    end
  end
end

local none = {}
local connect_options = { local_address = true, local_port = true }

local function to_address(addr)
  return type(addr) == "string" and core.address.new(addr) or addr
end

-- Closes the socket unless `build` succeeds; its error is raised as it is.
local function finish(sock, ok, err)
  if ok then return sock end
  sock:close()
  error(err, 0)
end

--- Opens a socket, sets the options (option name -> value, receive_timeout, send_timeout) and binds it.
---@param addr ip.addr
---@param port integer
---@param options table?
---@return ip.udp.socket
function udp.bind(addr, port, options)
  if options ~= nil then check_type(3, "bind", "table", options) end
  local sock = core.socket.new()
  return finish(sock, pcall(function()
    addr = to_address(addr)
    sock:open(addr)
    configure(sock, options or none, none)
    sock:bind(addr, port)
  end))
end

--- Opens a socket, sets the options (also local_address and local_port) and connects it.
---@param addr ip.addr
---@param port integer
---@param options table?
---@return ip.udp.socket
function udp.connect(addr, port, options)
  if options ~= nil then check_type(3, "connect", "table", options) end
  options = options or none
  local sock = core.socket.new()
  return finish(sock, pcall(function()
    addr = to_address(addr)
    sock:open(addr)
    configure(sock, options, connect_options)
    local from, from_port = options.local_address, options.local_port
    if from ~= nil or from_port ~= nil then
      local any = addr.is_v6 and core.address.any_v6 or core.address.any_v4
      sock:bind(from or any(), from_port or 0)
    end
    sock:connect(addr, port)
  end))
end

return udp
