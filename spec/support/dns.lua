--- DNS messages for specs, as bytes.

local messages = require "examples.dns_message"

local dns = {}

--- What stands behind the name in a question for an IPv4 address: type A, class IN.
dns.A_IN = string.pack(">I2 I2", 1, 1)

--- A query by examples/dns_message.lua, with an OPT record of this size where there is one.
function dns.query(id, text, type, size)
  local question = { name = messages.name_from_text(text), type = messages.type[type], class = 1 }
  return tostring(messages.query(id, question, size))
end

function dns.header(id, flags, questions, answers, authorities, additionals)
  return string.pack(messages.HEADER, id, flags, questions, answers or 0, authorities or 0, additionals or 0)
end

return dns
