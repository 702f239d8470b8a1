--- lua-ip: UDP sockets whose receive and send look blocking and suspend only the calling coroutine.

local core = require("ip.core")

---@class ip.interface
---@field name string
---@field index integer the interface index that scope ids and options use
---@field address ip.address? with its scope if it is link-local; nil for an interface without an address
---@field netmask ip.address? of the address
---@field broadcast ip.address? v4 only
---@field is_internal boolean a loopback interface
---@field is_up boolean
---@field is_running boolean it has a carrier
---@field is_multicast boolean
---@field mtu integer bytes
---@field hardware_address string "02:fc:00:00:00:01"; all zeros if there is none
--- An object that owns an open descriptor. The garbage collector closes the descriptor.
---@class ip.file_descriptor
---@field close fun(self: ip.file_descriptor) closes it; a second call does nothing
---@field dup fun(self: ip.file_descriptor): ip.file_descriptor a second descriptor of the same open file
---@field release fun(self: ip.file_descriptor): integer passes it to the caller, who has to close it

--- Flags of look-ups. An unknown name raises an error.
---@class ip.address_info_flag
---@field address_configured integer only families that this machine has an address of
---@field all_matching integer with v4_mapped: v4 addresses in any case
---@field canonical_name integer also the canonical name
---@field name_required integer get_name_info: an address without a name is an error
---@field numeric_host integer hosts are addresses
---@field numeric_service integer services are port numbers
---@field passive integer addresses to bind to
---@field v4_mapped integer v4 addresses in their v6 form

---@class ip.file_descriptor.module
---@field new fun(number: integer): ip.file_descriptor takes ownership of an open descriptor

local ip = {
  _VERSION = "lua-ip scm",
  address = core.address,
  ---@type ip.address_info_flag
  address_info_flag = core.address_info_flag,
  byte_span = core.byte_span,
  endpoint_from_key = core.endpoint_from_key,
  endpoint_key = core.endpoint_key,
  error = require("ip.error"),
  fiber = require("ip.fiber"),
  ---@type fun(): string the host name of this machine
  host_name = core.host_name,
  ---@type fun(all: boolean?): ip.interface[] one entry for each address of each interface that is up; with `all`
  --- also those that are down or have no address
  interfaces = core.interfaces,
  ---@type ip.file_descriptor.module
  file_descriptor = core.file_descriptor,
  message_flag = core.message_flag,
  toendpoint = core.toendpoint,
  tostring = core.tostring,
  udp = require("ip.udp"),
}

return ip
