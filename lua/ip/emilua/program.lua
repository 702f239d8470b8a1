--- Runs the script of `lua5.4 -l ip.emilua script.lua` as Emilua does: the program ends when all its fibers
--- have ended.
---
--- The interpreter offers no hook between the end of the script and the end of the program. So ip.emilua,
--- which -l loads before the script, runs the script itself and then ends the program.

local fiber = require("ip.fiber")

require("ip.core").own_file()

local program = {}

-- Returns the index of the first word between the interpreter and the script, and the interpreter. These
-- words have negative indices in `arg`. Returns nil if there is no script: then arg[0] is the interpreter
-- itself.
local function options_of(words)
  if type(words) ~= "table" or words[0] == nil or words[-1] == nil then return nil end
  local first = -1
  while words[first - 1] ~= nil do first = first - 1 end
  return first + 1, words[first]
end

--- Returns the interpreter's name if -l loads the module `name` before a script, and the first later option
--- that runs code, if there is one. Returns nil with -i, because the interpreter then continues after the
--- script.
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

-- Like the interpreter's message handler, but also adds a traceback to error values.
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
  -- "-" is the standard input; after "--" it is a file of that name
  local from_input = words[0] == "-" and words[-1] ~= "--"
  local chunk, problem = loadfile(not from_input and words[0] or nil)
  if not chunk then fail(interpreter, problem) end
  check(interpreter, xpcall(chunk, describe, table.unpack(words)))
  check(interpreter, xpcall(fiber.run, describe))
  os.exit(true, true)
end

return program
