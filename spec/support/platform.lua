--- What this system and this run can do, for specs that need it: each check stands here once.
---
--- `it` and `pending` are busted's; a module does not see them as globals, as a spec file does.

local busted = require "busted"
local support = require "spec.support"

local it, pending = busted.it, busted.pending

local platform = {}

--- How scripts/test.sh runs the specs: "plain", "sanitize", "valgrind" or "coverage".
platform.mode = os.getenv("LUA_IP_MODE") or "plain"

--- Does nothing but the interpreter itself run our code? Then counts of instructions and bytes are the
--- library's.
platform.is_plain = platform.mode == "plain"

--- Does a tool or a sanitizer around this process use memory and time of its own?
platform.is_watched = platform.mode == "valgrind" or platform.mode == "sanitize" or
  (os.getenv("LD_PRELOAD") or "") ~= ""

platform.is_linux = io.open("/proc/self/fdinfo/0") ~= nil

platform.has_v6 = pcall(function() support.bound("v6"):close() end)

--- Does loopback have addresses of that family, "v4" or "v6"?
function platform.has_family(family)
  return family ~= "v6" or platform.has_v6
end

--- `it` where `condition` holds. Elsewhere a pending spec of the same name, followed by what it needs.
---@param needs string?
function platform.it_where(condition, needs)
  if condition then return it end
  return function(name, fn)
    if needs then name = ("%s (needs %s)"):format(name, needs) end
    return pending(name, fn)
  end
end

local it_where = platform.it_where

platform.it_linux = it_where(platform.is_linux)
platform.it_v6 = it_where(platform.has_v6)

--- `it` for a spec that runs once for each family, "v4" and "v6".
function platform.it_family(family)
  return it_where(platform.has_family(family))
end

--- The same for what only Linux has.
function platform.it_linux_family(family)
  return it_where(platform.is_linux and platform.has_family(family))
end

-- A library that is preloaded for ours is not for the tools.
local function succeeds(command)
  return os.execute("(env -u LD_PRELOAD " .. command .. ") >/dev/null 2>&1") == true
end

--- Does a shell command succeed?
platform.succeeds = succeeds

local function once(check)
  local answer
  return function()
    if answer == nil then answer = check() end
    return answer
  end
end

--- May programs of ours run under strace(1)? Valgrind is not traced: its own calls would be counted.
platform.can_trace = once(function()
  return platform.is_linux and platform.mode ~= "valgrind" and succeeds("strace -f -c -o /dev/null true")
end)

--- May programs of ours run under valgrind? It does not run what another tool watches.
platform.has_valgrind = once(function()
  return not platform.is_watched and succeeds("valgrind --version")
end)

--- Can instructions be counted? Only those of a plain build.
platform.can_count_instructions = once(function()
  return platform.is_linux and platform.is_plain and platform.has_valgrind()
end)

return platform
