--- Error values for comparison: `if err == require("ip.error").ECANCELED then`. The table has every name of
--- an errno value, `EAI_…` and `INTERRUPTED`, and errno values by number: `ip.error[111]`. A name that no
--- system has raises; an unknown number is nil.

---@class ip.error.value
---@field code integer errno, or EAI_*
---@field name string "ECONNREFUSED"
---@field message string "connection refused"
---@field category "system"|"resolver"|"fiber"|"generic"
---@field operation string? the call, property or option that failed
---@field mtu integer? with EMSGSIZE, if the system knows it
---@field sent integer? of send_many: how many entries were sent before the failed entry
---@field where string? the place of the call: "server.lua:12"
---@field address ip.address? of the endpoint in the call
---@field port integer? of the endpoint in the call
---@field transient boolean a server goes on after this error
---@field togeneric fun(self: ip.error.value): ip.error.value the same errno value, "generic"

---@type table<string|integer, ip.error.value>
return require("ip.core").error
