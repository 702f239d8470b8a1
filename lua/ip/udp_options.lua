--- The options of ip.udp.bind and ip.udp.connect: the order in which they are set, and errors that name them.

local core = require("ip.core")
local check = require("ip.check")

require("ip.core").own_file()

---@alias ip.interface_argument string|integer|ip.address an interface's name, its index, or one of its v4 addresses

---@class ip.udp.options options of ip.udp.bind and ip.udp.connect; docs/reference/options.md describes each
---@field v6_only boolean?
---@field reuse_address boolean?
---@field reuse_port boolean?
---@field free_bind boolean?
---@field transparent boolean?
---@field bind_to_device string? the name of an interface
---@field mark integer? 0..4294967295
---@field debug boolean?
---@field broadcast boolean?
---@field do_not_route boolean?
---@field send_buffer_size integer? bytes
---@field receive_buffer_size integer? bytes
---@field busy_poll integer? microseconds
---@field incoming_cpu integer? -1: none
---@field max_pacing_rate integer? bytes per second
---@field unicast_hops integer? 1..255
---@field path_mtu_discovery "dont"|"want"|"do"|"probe"|nil
---@field traffic_class integer? 0..255
---@field priority integer? 0..4294967295
---@field multicast_hops integer? 0..255
---@field multicast_loop boolean?
---@field multicast_all boolean?
---@field multicast_interface ip.interface_argument?
---@field receive_packet_info boolean?
---@field receive_hops boolean?
---@field receive_traffic_class boolean?
---@field receive_timestamp boolean?
---@field receive_errors boolean?
---@field receive_dropped boolean?
---@field receive_offload boolean?
---@field segment_size integer? 0..65507
---@field coalesce boolean?
---@field receive_timeout number? seconds
---@field send_timeout number? seconds
---@field on_truncation "report"|"raise"|nil what a receive does that cuts its datagram; default "report"
---@field join_multicast_group ip.addr?
---@field interface ip.interface_argument? of bind on a multicast group: where the group is joined
---@field source ip.addr? of bind on a multicast group: the one source to hear
---@field local_address ip.addr? of connect: the address to send from
---@field local_port integer? of connect: the port to send from

local udp_options = {}

--- The options of a table are set in this order, which docs/reference/options.md explains: each after those
--- that decide what it does or whether it is permitted. Options that can only be read are at the end, and
--- refused there.
udp_options.order = {
  "v6_only", -- which families the others are set for
  "reuse_address", "reuse_port", "free_bind", "transparent",
  "bind_to_device", "mark", -- decide which interfaces and routes there are
  "debug", "broadcast", "do_not_route",
  "send_buffer_size", "receive_buffer_size", "busy_poll", "incoming_cpu", "max_pacing_rate",
  "unicast_hops", "path_mtu_discovery", "traffic_class",
  "priority", -- behind traffic_class, from which the system derives a priority on v4
  "multicast_hops", "multicast_loop", "multicast_all", "multicast_interface",
  "receive_packet_info", "receive_hops", "receive_traffic_class", "receive_timestamp", "receive_errors",
  "receive_dropped", "receive_offload", "segment_size", "coalesce",
  "receive_timeout", "send_timeout", "on_truncation",
  "join_multicast_group", "join_source_group", "leave_source_group", "leave_multicast_group",
  "dropped", "error", "mtu",
}

-- Those that are properties of the socket.
local properties = { receive_timeout = true, send_timeout = true, on_truncation = true }

local known = {}
for _, names in ipairs { udp_options.order, core.option_names() } do
  for _, name in ipairs(names) do known[name] = true end
end

local function set_property(sock, name, value)
  sock[name] = value
end

-- What is wrong with a value, from the error of the call that refused it; nil for any other error.
local function problem_of(err)
  if type(err) ~= "string" then return nil end
  local problem = err:match("bad argument #%d+ to '[^']*' %((.*)%)$")
  return problem and problem:gsub("^option '[^']*': ", "") or err:match("property '[^']*' of [%w_.]+: (.*)$")
end

--- Returns the result of fn(...). A bad argument becomes the bad argument of the function `call` that has the
--- table of options, and names `option`; other errors stay as they are.
function udp_options.named(call, option, fn, ...)
  local ok, result = pcall(fn, ...)
  if ok then return result end
  local problem = problem_of(result)
  if not problem then error(result, 0) end
  check.fail(3, call, ("option '%s': %s"):format(option, problem))
end

local function refuse(call, name, own)
  if own[name] then check.fail(3, call, ("option '%s': %s"):format(name, own[name])) end
  local similar = core.similar_option(name)
  local hint = similar and ("; did you mean '%s'?"):format(similar) or ""
  check.fail(3, call, ("unknown option '%s'%s"):format(name, hint))
end

--- Returns what pairs() gives of a table of options, for the function `call`; raises a bad argument for what is
--- no option. `own` has the options that `call` uses itself: true, or a text that says why it cannot use the
--- option now.
function udp_options.read(call, options, own)
  local given, wrong = {}, nil
  for name, value in pairs(options) do
    if known[name] or own[name] == true then
      given[name] = value
    else
      local text = type(name) == "string" and name or ("[%s]"):format(name)
      if wrong == nil or text < wrong then wrong = text end -- one answer for one table
    end
  end
  if wrong ~= nil then refuse(call, wrong, own) end
  return given
end

--- Sets options that udp_options.read has returned on a socket, for the function `call`.
function udp_options.set(call, sock, given)
  if next(given) == nil then return end
  for _, name in ipairs(udp_options.order) do
    local value = given[name]
    if value ~= nil then
      udp_options.named(call, name, properties[name] and set_property or sock.set_option, sock, name, value)
    end
  end
end

return udp_options
