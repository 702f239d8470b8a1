--- lua-ip: UDP sockets whose receive and send look blocking and suspend only the calling coroutine.

local core = require("ip.core")

--- An open descriptor with an owner: closed when it is collected.
---@class ip.file_descriptor
---@field close fun(self: ip.file_descriptor) closes it; again does nothing
---@field dup fun(self: ip.file_descriptor): ip.file_descriptor a second descriptor of the same open file
---@field release fun(self: ip.file_descriptor): integer gives it to the caller, who has to close it

---@class ip.file_descriptor.module
---@field new fun(number: integer): ip.file_descriptor takes over an open descriptor

local ip = {
  _VERSION = "lua-ip scm",
  address = core.address,
  byte_span = core.byte_span,
  endpoint_from_key = core.endpoint_from_key,
  endpoint_key = core.endpoint_key,
  error = require("ip.error"),
  fiber = require("ip.fiber"),
  ---@type ip.file_descriptor.module
  file_descriptor = core.file_descriptor,
  message_flag = core.message_flag,
  toendpoint = core.toendpoint,
  tostring = core.tostring,
  udp = require("ip.udp"),
}

return ip
