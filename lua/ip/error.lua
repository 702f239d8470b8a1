--- Error values to compare with: `if err == require("ip.error").ECANCELED then`. Every name of an errno
--- value, `EAI_…` and `INTERRUPTED`; `ip.error[111]` by number; an unknown name is nil.

---@class ip.error.value
---@field code integer errno, or EAI_*
---@field name string "ECONNREFUSED"
---@field message string "connection refused"
---@field category "system"|"resolver"|"fiber"|"generic"
---@field operation string? the call, property or option that failed
---@field mtu integer? with EMSGSIZE, where the system knows it
---@field sent integer? of send_many: how many entries were sent before the one that failed
---@field togeneric fun(self: ip.error.value): ip.error.value the same code in category "generic", if it is an errno

---@type table<string|integer, ip.error.value>
return require("ip.core").error
