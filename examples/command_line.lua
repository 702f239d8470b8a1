--- The command lines of the examples: `--name value` or `--name=value`, flags, operands, `--help`. A wrong
--- command line ends the program with exit code 2, and with the problem and the usage on stderr. And their ends:
--- `run` ends a program with the exit code that belongs to a result, an error or Ctrl-C.

---@class command_line.option
---@field name string the name after the two dashes
---@field value string? the placeholder of the value in the help text; without it the option is a flag
---@field help string
---@field default any a string is parsed like a value
---@field read (fun(text: string): any, string?)? returns the value of the text, or nil and the problem

---@class command_line
---@field usage string the script's name and its operands
---@field about string what the script does
---@field options command_line.option[]
---@field operands string? describes the operands; without it operands are an error
local command_line = {}
command_line.__index = command_line

--- Describes a command line. `description` has the fields usage, about, options and operands.
---@return command_line
function command_line.new(description)
  return setmetatable(description, command_line)
end

local function option_text(option)
  return option.value and ("--%s %s"):format(option.name, option.value) or "--" .. option.name
end

--- Returns the text of --help.
function command_line:help()
  local lines = { "usage: " .. self.usage, "", self.about, "" }
  local function add(left, right) lines[#lines + 1] = ("  %-20s %s"):format(left, right) end
  for _, option in ipairs(self.options) do
    local default = option.default ~= nil and (" (default %s)"):format(option.default) or ""
    add(option_text(option), option.help .. default)
  end
  add("--help", "show this text")
  return table.concat(lines, "\n") .. "\n"
end

--- Reports a wrong command line, and ends the program.
---@param message string
function command_line:fail(message)
  local script = self.usage:match("^%S+")
  io.stderr:write(script, ": ", message, "\nusage: ", self.usage, "\n--help lists the options\n")
  os.exit(2, true)
end

function command_line:find(name)
  for _, option in ipairs(self.options) do
    if option.name == name then return option end
  end
  self:fail(("unknown option --%s"):format(name))
end

-- Returns the value of an option: the text after its `=`, or the next argument.
function command_line:value_of(option, attached, following)
  local text = attached or following
  if text == nil then self:fail(("--%s needs a value"):format(option.name)) end
  if option.read == nil then return text end
  local value, message = option.read(text)
  if value == nil then self:fail(("--%s %s: %s"):format(option.name, text, message)) end
  return value
end

-- Parses the option at arguments[position]; returns the position of the next argument.
function command_line:read_option(values, arguments, position)
  local name, attached = arguments[position]:match("^%-%-([^=]+)=?(.*)$")
  if not arguments[position]:find("=", 1, true) then attached = nil end
  if name == nil then self:fail("unknown option " .. arguments[position]) end
  local option = self:find(name)
  if not option.value then
    if attached then self:fail(("--%s takes no value"):format(name)) end
    values[name] = true
    return position + 1
  end
  values[name] = self:value_of(option, attached, arguments[position + 1])
  return position + (attached and 1 or 2)
end

function command_line:check_operands(operands)
  if self.operands == nil and operands[1] then self:fail("unexpected argument " .. operands[1]) end
  if self.operands and not operands[1] then self:fail(self.operands .. " expected") end
end

--- Parses the arguments.
---@param arguments string[]
---@return table<string, any> values by option name
---@return string[] operands
function command_line:parse(arguments)
  local values, operands, position = {}, {}, 1
  for _, option in ipairs(self.options) do
    local default = option.default
    values[option.name] = type(default) == "string" and option.read and option.read(default) or default
  end
  while position <= #arguments do
    local argument = arguments[position]
    if argument == "--help" or argument == "-h" then
      io.stdout:write(self:help())
      os.exit(0, true)
    elseif argument == "--" then
      table.move(arguments, position + 1, #arguments, #operands + 1, operands)
      break
    elseif argument:find("^%-.") then
      position = self:read_option(values, arguments, position)
    else
      operands[#operands + 1] = argument
      position = position + 1
    end
  end
  self:check_operands(operands)
  return values, operands
end

--- Returns the reason in a message of `io.open` or `file:read`, which may begin with the file's name.
---@param message string
function command_line.reason(message)
  return (message:gsub("^.*: ", ""))
end

local CTRL_C = 130 -- 128 and the number of SIGINT, as shells have it

-- Returns what to tell the user about an error: of the system's and the network's what they say, of a mistake in the
-- program where it is, and false of Ctrl-C, which raises an error in the main thread.
local function account_of(err)
  if type(err) == "string" and err:find("interrupted!$") then return false end
  return type(err) == "userdata" and tostring(err) or debug.traceback(tostring(err), 2)
end

--- Runs main(...) and ends the program: with exit code 1 when main returns false or raises an error, which is then told
--- on stderr, with 130 on Ctrl-C, and otherwise with 0. Ctrl-C raises its error in the main thread: a main that waits
--- under `pcall` is run in a fiber, by `command_line.run(fiber.run, main)`.
---@param main fun(...): boolean?
function command_line.run(main, ...)
  local ok, result = xpcall(main, account_of, ...)
  if ok then os.exit(result ~= false, true) end
  if result then io.stderr:write(arg[0]:match("[^/]*$"), ": ", result, "\n") end
  os.exit(result and 1 or CTRL_C, true)
end

--- Parses an integer within low..high.
function command_line.integer(low, high)
  return function(text)
    local value = text:find("^%d+$") and math.tointeger(tonumber(text))
    if value and value >= low and value <= high then return value end
    return nil, ("a whole number within %d..%d expected"):format(low, high)
  end
end

--- Parses a number of seconds, which may have a fraction.
---@param allows_zero boolean
function command_line.seconds(allows_zero)
  return function(text)
    local value = text:find("^[%d.]+$") and tonumber(text)
    if value and value < math.huge and (value > 0 or allows_zero) then return value end
    return nil, allows_zero and "a number of seconds expected" or "a number of seconds above 0 expected"
  end
end

command_line.port = command_line.integer(0, 65535)
command_line.remote_port = command_line.integer(1, 65535)

return command_line
