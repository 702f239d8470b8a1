--- Processes of their own, for specs: run to the end, or in the background beside the fibers of this process.

local ip = require "ip"

local POLL = 0.01

---@class process
---@field pid integer
local process = {}
process.__index = process

local running = {} -- processes that have not been stopped

local function quote(word)
  return "'" .. tostring(word):gsub("'", "'\\''") .. "'"
end

local function command_of(words)
  local quoted = {}
  for i, word in ipairs(words) do
    quoted[i] = quote(word)
  end
  return table.concat(quoted, " ")
end

local function contents(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read("a")
end

--- The words of a command that runs a Lua program with this library.
function process.lua(...)
  return { os.getenv("LUA_IP_LUA") or "lua5.4", ... }
end

--- The words of a command that is no part of this project. A library that is preloaded for ours is not for
--- it.
function process.foreign(...)
  return { "env", "LD_PRELOAD=", ... }
end

--- Is there such a program?
function process.exists(name)
  return os.execute(("command -v %s >/dev/null 2>&1"):format(quote(name))) == true
end

--- Does a process sleep in a system call, or is it gone? Linux.
function process.is_asleep(pid)
  local file <close> = io.open(("/proc/%d/stat"):format(pid))
  return file == nil or file:read("a"):match("^%d+ %b() (%a)") == "S"
end

--- Starts a command in the background. Its output goes to files; stop it, or hold it in a `<close>` variable.
---@param words string[]
---@return process
function process.start(words)
  local self = setmetatable({ words = words, output_path = os.tmpname(), errors_path = os.tmpname() }, process)
  -- The shell stays to tell the exit code; what it would say itself ("Killed") is not wanted.
  self.pipe = assert(io.popen(("exec 2>/dev/null; exec %s </dev/null >%s 2>%s & echo $!; wait $!; echo $?"):format(
    command_of(words), quote(self.output_path), quote(self.errors_path))))
  self.pid = self.pipe:read("n")
  running[self] = true
  return self
end

--- What it has written to stdout up to now.
function process:output()
  return contents(self.output_path)
end

--- What it has written to stderr up to now.
function process:errors()
  return contents(self.errors_path)
end

function process:is_running()
  return os.execute(("kill -0 %d 2>/dev/null"):format(self.pid)) == true
end

---@param name string "INT", "TERM", …
function process:signal(name)
  assert(os.execute(("kill -%s %d"):format(name, self.pid)))
end

-- Lets the fibers of this process run until condition() gives something; returns that.
function process:poll(what, seconds, condition)
  local deadline = ip.fiber.now() + (seconds or 20)
  repeat
    local result = condition()
    if result then return result end
    ip.fiber.sleep(POLL)
  until ip.fiber.now() > deadline
  error(("%s: %s did not come; stdout: %s stderr: %s"):format(
    table.concat(self.words, " "), what, self:output(), self:errors()), 0)
end

--- Waits until stdout and stderr together have a match of `pattern`; returns its first capture.
function process:wait_for(pattern, seconds)
  return self:poll(pattern, seconds, function()
    local alive = self:is_running() -- looked at first: what it wrote before its end is read then
    local found = (self:output() .. self:errors()):match(pattern)
    if not found and not alive then
      error(("%s has ended: %s%s"):format(table.concat(self.words, " "), self:output(), self:errors()), 0)
    end
    return found
  end)
end

--- Waits for its end; returns the exit code.
function process:wait(seconds)
  self:poll("its end", seconds, function() return not self:is_running() end)
  self.code = self.code or self.pipe:read("n")
  return self.code
end

--- Ends it, whatever it is doing, and removes its files. May be called again.
function process:stop()
  if not running[self] then return end
  running[self] = nil
  if not self.code and self:is_running() then os.execute(("kill -KILL %d 2>/dev/null"):format(self.pid)) end
  self.pipe:close()
  os.remove(self.output_path)
  os.remove(self.errors_path)
end

process.__close = process.stop

--- Ends all that were started: for `after_each` and `teardown`, which run after a failure too.
function process.stop_all()
  for each in pairs(running) do
    each:stop()
  end
end

--- Runs a command to its end, while the fibers of this process run.
---@param words string[]
---@return string output
---@return string errors
---@return integer code
function process.run(words, seconds)
  local self <close> = process.start(words)
  local code = self:wait(seconds)
  return self:output(), self:errors(), code
end

return process
