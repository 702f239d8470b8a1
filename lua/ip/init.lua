--- lua-ip: UDP sockets whose receive and send look blocking and suspend only the calling coroutine.

local core = require("ip.core")

---@class ip.interface
---@field name string
---@field index integer what scope ids and options take for the interface
---@field address ip.address with its scope where it is link-local
---@field netmask ip.address
---@field is_internal boolean a loopback interface
---@field hardware_address string "02:fc:00:00:00:01"; all zeros where there is none

local ip = {
  _VERSION = "lua-ip scm",
  address = core.address,
  address_info_flag = core.address_info_flag,
  byte_span = core.byte_span,
  endpoint_from_key = core.endpoint_from_key,
  endpoint_key = core.endpoint_key,
  error = require("ip.error"),
  fiber = require("ip.fiber"),
  ---@type fun(): string what this machine calls itself
  host_name = core.host_name,
  ---@type fun(): ip.interface[] one entry for each address of each interface that is up
  interfaces = core.interfaces,
  message_flag = core.message_flag,
  toendpoint = core.toendpoint,
  tostring = core.tostring,
  udp = require("ip.udp"),
}

return ip
