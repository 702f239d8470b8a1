--- A results file: tab-separated rows, and lines `#key<TAB>value` that describe where and when they were
--- measured. `seconds` is wall time; `cpu` and `delay` (how long the server was ready to run while another
--- process had its core) are nanoseconds; `round_trip` is seconds.

local results = {}

local COLUMNS = {
  "workload", "round", "contender", "status", "seconds", "datagrams", "lost", "cpu", "delay", "round_trip",
  "round_trip_p99", "reason",
}
local TEXT = { workload = true, contender = true, status = true, reason = true }

local function write_row(file, row)
  local fields = {}
  for i, name in ipairs(COLUMNS) do fields[i] = tostring(row[name] or (TEXT[name] and "" or 0)) end
  file:write(table.concat(fields, "\t"), "\n")
  file:flush()
end

local function write_about(file, key, value)
  file:write("#", key, "\t", value, "\n")
end

--- Opens `path` for new results: a table with the functions `about(key, value)`, `row(row)` and `close()`.
function results.writer(path)
  local file = assert(io.open(path, "w"))
  return {
    about = function(key, value) write_about(file, key, value) end,
    row = function(row) write_row(file, row) end,
    close = function() file:close() end,
  }
end

--- Reads `lines` (an iterator): the rows in order, and a table of the `#key` lines.
function results.read(lines)
  local rows, about = {}, {}
  for line in lines do
    local key, value = line:match("^#([^\t]+)\t(.*)$")
    if key then
      about[key] = value
    else
      local row, i = {}, 0
      for field in (line .. "\t"):gmatch("([^\t]*)\t") do
        i = i + 1
        local name = COLUMNS[i]
        if name then row[name] = TEXT[name] and field or tonumber(field) end
      end
      assert(i == #COLUMNS, "no row: " .. line)
      rows[#rows + 1] = row
    end
  end
  return rows, about
end

return results
