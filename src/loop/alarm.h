/* alarm.h: what wakes the loop for its timers: a timerfd(2) where there is one, else a uv_timer_t. */
#ifndef IP_ALARM_H
#define IP_ALARM_H

#include "loop/timer.h"

/* The alarm of a runtime whose loop is open; NULL when memory is short. */
struct ip_alarm *ip_alarm_new(struct ip_runtime *runtime);

/* `deadline` is the earliest: the alarm is set before the loop polls the next time, if it is not set for as
   early a time already. */
void ip_alarm_hasten(struct ip_alarm *alarm, ip_deadline deadline);

/* No timer runs any more. The alarm stays set, for to set it again would cost a system call. */
void ip_alarm_rest(struct ip_alarm *alarm);

/* When the alarm would wake the loop for a deadline that is not IP_NEVER. */
ip_deadline ip_alarm_time(const struct ip_alarm *alarm, ip_deadline deadline);

/* In the child of a fork, whose loop has been made anew: the timerfd is still the parent's. */
void ip_alarm_forked(struct ip_alarm *alarm);

/* Gives the memory and the descriptor back; the handles are closed. NULL: does nothing. */
void ip_alarm_free(struct ip_alarm *alarm);

#endif
