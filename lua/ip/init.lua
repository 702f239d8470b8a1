--- lua-ip: UDP sockets whose receive and send look blocking and suspend only the calling coroutine.

local core = require("ip.core")

local ip = {
  _VERSION = "lua-ip scm",
  address = core.address,
  byte_span = core.byte_span,
  endpoint_from_key = core.endpoint_from_key,
  endpoint_key = core.endpoint_key,
  error = require("ip.error"),
  fiber = require("ip.fiber"),
  file_descriptor = core.file_descriptor,
  message_flag = core.message_flag,
  toendpoint = core.toendpoint,
  tostring = core.tostring,
  udp = require("ip.udp"),
}

return ip
