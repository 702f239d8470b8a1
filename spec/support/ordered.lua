--- ordered(values, ...): a table of the values with these names, whose pairs come in this order.

return function(values, ...)
  local names, options = { ... }, {}
  for _, name in ipairs(names) do options[name] = values[name] end
  local function step(_, name)
    local at = 0
    for i, each in ipairs(names) do
      if each == name then at = i end
    end
    return names[at + 1], options[names[at + 1]]
  end
  return setmetatable(options, { __pairs = function() return step end })
end
