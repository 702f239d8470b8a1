--- System calls and allocations that fail, where spec/host/fuzz_host.c runs the fuzzer; elsewhere nothing does.

local random = require "spec.fuzz.random"

local found, host = pcall(require, "fault_host")

local faults = { active = found }

-- The messages of lua_resume's own errors. It makes them on the stack of the coroutine that does not run, where a lack
-- of memory would unwind everything up to the main thread (Lua ldo.c, resume_error and luaD_seterrorobj); what exists
-- needs no memory.
faults.kept = { "cannot resume dead coroutine", "cannot resume non-suspended coroutine", "C stack overflow",
  "error in error handling" }

local function nothing() end

--- Holds faults back until `release`. They nest, and need no memory.
faults.hold = found and host.hold or nothing
faults.release = found and host.release or nothing

-- Of so many system calls or allocations one fails; 0: none. What only soft faults have been played in is lost
-- nowhere.
local KINDS = {
  { system = 30, memory = 0, soft = true },
  { system = 60, memory = 0, soft = false },
  { system = 0, memory = 2000, soft = false },
  { system = 200, memory = 6000, soft = false },
}

local FIRST_USE = { system = 6, memory = 0, soft = false }

local kind

--- Chooses what fails in the epoch that begins; `first_use`: there are few calls, many of which are to fail.
function faults.begin(seed, epoch, first_use)
  if not found then return end
  kind = first_use and FIRST_USE or random.new(seed, epoch, 3):pick(KINDS)
end

--- pcall(fn, ...), while things fail in a way that follows from these numbers.
function faults.play(seed, step, fn, ...)
  if not found then return pcall(fn, ...) end
  return host.play(random.new(seed, step, 4):next(), kind.system, kind.memory, kind.soft, fn, ...)
end

--- May datagrams be lost, and calls end in the middle, in this epoch?
function faults.may_lose()
  return found and not kind.soft
end

--- How often has the loop looked for events? nil where nobody counts.
function faults.polls()
  if not found then return nil end
  return (select(6, host.counts()))
end

--- Has a call failed with this errno value?
function faults.injected(code)
  return found and host.injected(code) > 0
end

--- One line for people, or nil.
function faults.report()
  if not found then return nil end
  local calls, failed, hard, allocations, no_memory, polls = host.counts()
  return ("faults: %d of %d system calls failed, %d of these with an error to report; %d of %d allocations failed;"
    .. " %d polls"):format(failed, calls, hard, no_memory, allocations, polls)
end

return faults
