--- Runs the script of `lua5.4 -l ip.emilua script.lua` as Emilua does: the program ends when all its fibers
--- have ended.
---
--- The interpreter gives no way to act between the end of the script and the end of the program. So
--- ip.emilua, which -l loads before the script, runs the script itself and then ends the program.

local fiber = require("ip.fiber")

local program = {}

-- The words of the command line between the interpreter and the script, which have negative indices in `arg`;
-- nil where there is no script: then arg[0] is the interpreter itself.
local function options_of(words)
  if type(words) ~= "table" or words[0] == nil or words[-1] == nil then return nil end
  local first = -1
  while words[first - 1] ~= nil do first = first - 1 end
  return first + 1, words[first]
end

--- Is the module `name` loaded by -l, for a script? Gives the interpreter's name, and the first option to run
--- code that comes after it. Not with -i, which goes on after the script.
function program.loaded_by_option(name, words)
  local i, interpreter = options_of(words)
  if i == nil then return nil end
  local found, late = false, nil
  while i < 0 do
    local word = words[i]
    if word == "-i" then return nil end
    local option, value = word:match("^(%-[el])(.*)$")
    if option and value == "" then
      i = i + 1
      value = words[i]
    end
    if option == "-l" and value == name then
      found = true
    elseif option and found then
      late = late or word
    end
    i = i + 1
  end
  return found and interpreter or nil, late
end

-- As the interpreter's own, but with a traceback of error values, too.
local function describe(err)
  local kind = type(err)
  local ok, text = false, nil
  if kind == "string" or kind == "number" or getmetatable(err) ~= nil then ok, text = pcall(tostring, err) end
  return debug.traceback(ok and text or ("(error object is a %s value)"):format(kind), 2)
end

local function fail(interpreter, message)
  io.stderr:write(interpreter, ": ", message, "\n")
  os.exit(false, true)
end

local function check(interpreter, ok, message)
  if not ok then fail(interpreter, message) end
end

--- Runs the script of `words` (the global arg), lets all fibers end, and ends the program.
function program.run(interpreter, words)
  -- "-" is the standard input, but a file of that name after "--"
  local from_input = words[0] == "-" and words[-1] ~= "--"
  local chunk, problem = loadfile(not from_input and words[0] or nil)
  if not chunk then fail(interpreter, problem) end
  check(interpreter, xpcall(chunk, describe, table.unpack(words)))
  check(interpreter, xpcall(fiber.run, describe))
  os.exit(true, true)
end

return program
