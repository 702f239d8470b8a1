--- IP addresses as immutable values. They compare by value (`==`, `<`, `<=`: v4 before v6, then by bytes,
--- then by scope), and `tostring` returns RFC 5952 text.
---@class ip.address
---@field is_v4 boolean an IPv4 address; a v4-mapped one is not
---@field is_v6 boolean an IPv6 address, v4-mapped ones included
---@field is_loopback boolean 127.0.0.0/8 or ::1
---@field is_multicast boolean 224.0.0.0/4 or ff00::/8
---@field is_unspecified boolean 0.0.0.0 or ::
---@field is_v4_mapped boolean ::ffff:0:0/96; false on a v4 address
---@field is_link_local boolean fe80::/10; an error on a v4 address
---@field is_site_local boolean fec0::/10; an error on a v4 address
---@field is_multicast_node_local boolean multicast with scope 1; an error on a v4 address
---@field is_multicast_link_local boolean multicast with scope 2; an error on a v4 address
---@field is_multicast_site_local boolean multicast with scope 5; an error on a v4 address
---@field is_multicast_org_local boolean multicast with scope 8; an error on a v4 address
---@field is_multicast_global boolean multicast with scope 14; an error on a v4 address
---@field scope_id integer 0..4294967295, 0 without a scope; an error on a v4 address
---@field to_v4 fun(self: ip.address): ip.address the v4 address in a v4-mapped one, or itself
---@field to_v6 fun(self: ip.address): ip.address the v4-mapped form of a v4 address, or itself
---@field to_bytes fun(self: ip.address): string 4 or 16 bytes in network order
---@field with_scope_id fun(self: ip.address, n: integer): ip.address the same v6 address in scope n

--- An address argument: an `ip.address`, or a string that `ip.address.new` accepts.
---@alias ip.addr ip.address | string

---@class ip.address.module
---@field new fun(str?: string): ip.address parses an address, raises errors; default 0.0.0.0
---@field parse fun(str: string): ip.address?, string? parses an address; nil and a message for malformed text
---@field any_v4 fun(): ip.address 0.0.0.0
---@field any_v6 fun(): ip.address ::
---@field loopback_v4 fun(): ip.address 127.0.0.1
---@field loopback_v6 fun(): ip.address ::1
---@field broadcast_v4 fun(): ip.address 255.255.255.255
---@field from_bytes fun(data: string | byte_span): ip.address makes an address from 4 or 16 bytes

---@type ip.address.module
return require("ip.core").address
