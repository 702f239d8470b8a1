/* observer.h: those who want to know when an object becomes ready, and take nothing of it. Unlike a waiter,
   an observer is in no line: all of them are notified at once. */
#ifndef IP_OBSERVER_H
#define IP_OBSERVER_H

#include "base/queue.h"
#include "base/util.h"

/* The owner of an observer has its memory; an object only links it. */
struct ip_observer {
  struct ip_queue link; /* detached while it observes nothing */
  /* The object is ready or has ended; the observer has left its list. Does not call Lua. */
  void (*notify)(struct ip_observer *observer);
};

static inline void ip_observer_init(struct ip_observer *observer, void (*notify)(struct ip_observer *)) {
  ip_queue_init(&observer->link);
  observer->notify = notify;
}

/* Notifies all observers in a list, which is empty afterwards. */
static inline void ip_observer_notify_all(struct ip_queue *observers) {
  struct ip_queue due;
  ip_queue_init(&due);
  ip_queue_move(&due, observers);
  for (struct ip_queue *link = ip_queue_pop(&due); link != NULL; link = ip_queue_pop(&due)) {
    struct ip_observer *observer = ip_container_of(link, struct ip_observer, link);
    observer->notify(observer);
  }
}

#endif
